"""What a site keeps beyond the profile, by its own decision: ``--keep``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medfed.core.errors import UserError

_BLOCK = re.compile(r"([0-9A-Fa-f]{4}),\s*(\S.{0,63})")
_VRS = frozenset(["AS", "CS", "DS", "FD", "FL", "IS", "LO", "LT", "SH", "SL", "SS", "ST", "UC", "UL", "US", "UT"])
_OF_THE_PATIENT = frozenset(
    {
        "EthnicGroup",
        "PatientAge",
        "PatientSex",
        "PatientSexNeutered",
        "PatientSize",
        "PatientWeight",
        "PregnancyStatus",
        "SmokingStatus",
    }
)
_NAMES_OF_THINGS = frozenset({"ManufacturerModelName", "ProtocolName", "SequenceName"})
_IDENTIFYING = re.compile(
    "Name$|IDs?$|Identif|Number|Address|Telephone|Physician|Operator|Person|Institution|Locator|Location$|Residence"
    "|Birth|Login|^GPS"
)


@dataclass(frozen=True)
class Kept:
    """Attributes by tag, and blocks of private attributes by (group, creator)."""

    tags: frozenset[int] = frozenset()
    blocks: frozenset[tuple[int, str]] = frozenset()
    names: tuple[str, ...] = ()
    """As they were asked for, in order: the report says them, and each copy."""

    @property
    def has_characteristics(self) -> bool:
        """Whether an attribute of the patient's body or habits is among them (PS3.15, E.3.7)."""
        return not _OF_THE_PATIENT.isdisjoint(self.names)


def parse_kept(asked: Iterable[str]) -> Kept:
    """Keywords (``PatientAge``), and private blocks as ``GROUP,CREATOR`` (``0019,SIEMENS MR HEADER``).

    Raises UserError for what is neither, and for attributes that name a person, a place or a thing.
    """
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tags, blocks, names = set(), set(), []
    for each in asked:
        if block := _BLOCK.fullmatch(each):
            group = int(block[1], 16)
            if group % 2 == 0:
                raise UserError(f"--keep: the group {block[1]} is even, and private groups are odd")
            blocks.add((group, block[2].strip()))
            names.append(f"{block[1].upper()},{block[2].strip()}")
            continue
        tag = tag_for_keyword(each)
        if tag is None:
            raise UserError(
                f"--keep {each}: no attribute of DICOM has this keyword",
                remedy="give a keyword, such as PatientAge, or a private block as GROUP,CREATOR",
            )
        identifying = (_IDENTIFYING.search(each) and each not in _NAMES_OF_THINGS) or (
            tag >> 16 == 0x0010 and each not in _OF_THE_PATIENT
        )
        if dictionary_VR(tag) not in _VRS or identifying or tag >> 16 < 0x0008:
            raise UserError(
                f"--keep {each}: this attribute can name a patient, or has a treatment of its own",
                remedy="leave it out; dates are shifted, UIDs and ids replaced, in any case",
            )
        tags.add(tag)
        names.append(each)
    return Kept(frozenset(tags), frozenset(blocks), tuple(sorted(set(names))))
