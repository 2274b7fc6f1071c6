"""The walk through a data set: each attribute is kept, changed or left out, at every depth.

The copy is built from nothing: what is not understood is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medfed.data.deidentify import values
from medfed.data.deidentify.codes import CODE_FIELDS, known_code
from medfed.data.deidentify.dates import DUMMIES, is_of_care
from medfed.data.deidentify.kept import Kept
from medfed.data.deidentify.patient import Patient
from medfed.data.deidentify.profile import Action, basic_profile
from medfed.data.deidentify.reading import check_depth
from medfed.data.deidentify.refusals import PIXELS
from medfed.data.deidentify.secret import Secret
from medfed.data.deidentify.tables import is_whole_table
from medfed.data.deidentify.tally import Deed, Tally
from medfed.data.deidentify.uids import is_standard, new_uid
from medfed.data.deidentify.values import Rewritten

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_PSEUDONYMS = frozenset({"PatientName", "PatientID"})
_NO_GROUPS = frozenset({0x0000, 0x0002, 0x0004})
_CURVES_AND_OVERLAYS = frozenset({0x50, 0x60})
_CREATORS = range(0x10, 0x100)


@dataclass(frozen=True)
class Rules:
    """What is the same for all files of a copy."""

    secret: Secret
    kept: Kept = Kept()


@dataclass(frozen=True)
class Cleaner:
    """Cleans the data sets of one file, and counts what it does."""

    rules: Rules
    patient: Patient
    tally: Tally

    def cleaned(self, source: Dataset, *, depth: int = 0) -> Dataset:
        """A new data set with what may stay of another; depth 0 is the file's own, others are items of sequences.

        Raises Unreadable for items deeper than DEEPEST.
        """
        from pydicom.dataset import Dataset as New

        check_depth(depth)
        target = New()
        code = known_code(source) if depth else None
        for tag in sorted(source.keys()):
            element = _read(source, int(tag))
            if element is None:
                deed, value = Deed.REMOVED, None
            elif element.tag.is_private:
                deed, value = self._private(element, source)
            elif not _is_lawful(element):
                deed, value = Deed.REMOVED, None
            elif code is not None and element.keyword in CODE_FIELDS:
                deed, value = Deed.KEPT, code[CODE_FIELDS.index(element.keyword)]
            else:
                deed, value = self._public(element, source, depth)
            self.tally.count(deed, element.keyword if element is not None else "")
            if element is not None and deed.leaves_one:
                _add(target, element, value)
        return target

    def _public(self, element: DataElement, source: Dataset, depth: int) -> Rewritten:
        """What becomes of a lawful attribute of the standard: what the profile says of it, else its kind of value."""
        tag, vr, keyword = int(element.tag), element.VR, element.keyword
        if keyword in _PSEUDONYMS:
            return Deed.REPLACED, self.patient.pseudonym
        if tag in self.rules.kept.tags:
            return values.kept(element, self.patient)
        if vr in DUMMIES and is_of_care(keyword):
            return values.shifted(element, self.patient.shift)
        action = basic_profile().action(tag)
        if action is Action.REMOVE or (vr in DUMMIES and action is None):
            return Deed.REMOVED, None
        if vr == "UI":
            uids = values.texts(element)
            changed = [uid if not uid or is_standard(uid) else new_uid(self.rules.secret, uid) for uid in uids]
            return (Deed.MAPPED if changed != uids else Deed.KEPT), changed
        if action is Action.EMPTY:
            return Deed.EMPTIED, values.nothing(vr)
        if action is Action.DUMMY:
            return values.dummy(vr)
        if vr == "SQ":
            return Deed.KEPT, [self.cleaned(item, depth=depth + 1) for item in element.value]
        if (keyword in PIXELS and depth == 0) or is_whole_table(element, source):
            return Deed.KEPT, element.value
        return values.unnamed(element)

    def _private(self, element: DataElement, source: Dataset) -> Rewritten:
        """A private attribute stays only in a block that the site keeps, and there only numbers do."""
        group, number = element.tag.group, element.tag.element
        is_creator = number in _CREATORS
        creator = source.get((group, number if is_creator else number >> 8))
        if creator is None or (group, str(creator.value).strip()) not in self.rules.kept.blocks:
            return Deed.PRIVATE, None
        if is_creator or values.is_numeric(element):
            return Deed.KEPT, element.value
        return Deed.PRIVATE, None


def _read(source: Dataset, tag: int) -> DataElement | None:
    """An element of a data set; None where its value does not read as its kind."""
    try:
        return source[tag]
    except Exception:  # a damaged element can fail in any way, and is left out
        return None


def _is_lawful(element: DataElement) -> bool:
    """Whether the standard knows the attribute as one of a data set, with this VR, and not as a curve or an overlay."""
    from pydicom.datadict import dictionary_VR

    group = element.tag.group
    if not element.keyword or group in _NO_GROUPS or group >> 8 in _CURVES_AND_OVERLAYS or element.tag.element == 0:
        return False
    if element.keyword == "SpecificCharacterSet":
        return False
    vrs = dictionary_VR(element.tag)
    return element.VR in {vrs, *vrs.split(" or ")}


def _add(target: Dataset, element: DataElement, value: Any) -> None:
    from pydicom.dataelem import DataElement as New

    vr = "OW" if element.VR == "OB or OW" else element.VR
    target[element.tag] = New(element.tag, vr, value, is_undefined_length=element.is_undefined_length)
