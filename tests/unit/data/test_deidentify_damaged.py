"""Files that are cut short, nested too deeply, or odd on purpose: refused before they cost anything."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
)
from tests.unit.data.planted import SECRET, small_image, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.reading import DEEPEST
from medfed.data.deidentify.refusals import Refusal

RULES = Rules(SECRET)
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


def nested(depth: int, innermost: Dataset) -> Dataset:
    """An image with a data set in as many sequences within each other."""
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([innermost])
        innermost = outer
    image = small_image()
    image.update(innermost)
    return image


def number() -> Dataset:
    item = Dataset()
    item.ReferencedFrameNumber = 1
    return item


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_nested_too_deeply_is_refused(syntax: str) -> None:
    """Each level more costs the writer nearly three times as much, where it fails."""
    assert isinstance(deidentify(written(nested(DEEPEST, number()), syntax), RULES), Copy)
    assert deidentify(written(nested(DEEPEST + 1, number()), syntax), RULES) is Refusal.UNREADABLE


def test_a_code_of_another_kind_than_the_standards_is_left_out() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code[0x00080104] = DataElement(0x00080104, "US", 7)  # its meaning, which no writer could write as a number
    made = deidentify(written(nested(1, code), ExplicitVRLittleEndian), RULES)
    assert isinstance(made, Copy)
    (item,) = dcmread(BytesIO(made.content)).ReferencedImageSequence
    assert item.CodeValue == "113100" and "CodeMeaning" not in item


def structure_set(*, is_undefined_length: bool = False) -> Dataset:
    """Five outlines, in the last element of the file."""
    made = small_image()
    del made.PixelData
    made.SOPClassUID, made.Modality = RTStructureSetStorage, "RTSTRUCT"
    outlines = []
    for k in range(5):
        contour, outline = Dataset(), Dataset()
        contour.NumberOfContourPoints, contour.ContourData = 4, [float(x + k) for x in range(12)]
        outline.ReferencedROINumber, outline.ContourSequence = k, Sequence([contour])
        outline.is_undefined_length_sequence_item = is_undefined_length
        outlines.append(outline)
    made.ROIContourSequence = Sequence(outlines)
    made["ROIContourSequence"].is_undefined_length = is_undefined_length
    return made


@pytest.mark.parametrize("is_undefined_length", [False, True])
@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian])
def test_a_file_that_is_cut_short_is_refused_and_never_copied_in_part(syntax: str, is_undefined_length: bool) -> None:
    content = written(structure_set(is_undefined_length=is_undefined_length), syntax)
    whole = deidentify(content, RULES)
    assert isinstance(whole, Copy) and len(dcmread(BytesIO(whole.content)).ROIContourSequence) == 5
    outlines = 100 if syntax == DeflatedExplicitVRLittleEndian else 500  # bytes at the end of the file
    for cut in range(1, outlines, 3):
        made = deidentify(content[:-cut], RULES)
        only_noughts = cut <= 4 and made == whole  # padding, or a delimiter's length
        assert only_noughts or made is Refusal.UNREADABLE, cut


@pytest.mark.parametrize("last", [small_image(), structure_set(), structure_set(is_undefined_length=True)])
def test_a_head_without_its_element_is_a_cut_too_and_padding_is_none(last: Dataset) -> None:
    content = written(last, ExplicitVRLittleEndian)
    assert deidentify(content + b"\xfc\xff\xfc\xffOB", RULES) is Refusal.UNREADABLE
    assert isinstance(deidentify(content + b"\0" * 4, RULES), Copy)


def test_a_plan_that_pydicom_ships_cut_short_is_refused() -> None:
    sample = Path(pydicom.__path__[0]) / "data" / "test_files" / "rtplan_truncated.dcm"
    assert deidentify(sample.read_bytes(), RULES) is Refusal.UNREADABLE


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", [["1.2.3", "1.2.4"], [f"1.2.3.{k}" for k in range(8)], "Jane Doe"])
def test_a_file_whose_study_series_or_instance_is_not_one_uid_is_refused(keyword: str, value: list[str] | str) -> None:
    """The copy's folders are named by its UIDs: eight of them are longer than a name may be."""
    image = dcmread(BytesIO(written(small_image(), ExplicitVRLittleEndian)))
    image[keyword] = DataElement(image[keyword].tag, "UI" if isinstance(value, list) else "LO", value)
    buffer = BytesIO()
    image.save_as(buffer)
    assert deidentify(buffer.getvalue(), RULES) is Refusal.MANY_UIDS
