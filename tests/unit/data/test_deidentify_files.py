"""What becomes of whole files: what stays, what is refused, and that nothing stops a run."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    TwelveLeadECGWaveformStorage,
)
from tests.unit.data.planted import SECRET, small_image, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.burned_in import Suspicion
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.profile import basic_profile
from medfed.data.deidentify.reading import silent
from medfed.data.deidentify.refusals import Refusal
from medfed.data.deidentify.secret import Secret
from medfed.data.images.guard import Guard

RULES = Rules(SECRET)
SAMPLES = Path(pydicom.__path__[0]) / "data" / "test_files"
CT, MR = SAMPLES / "CT_small.dcm", SAMPLES / "MR_small.dcm"


def clean(content: bytes, rules: Rules = RULES) -> Dataset:
    copy = deidentify(content, rules)
    assert isinstance(copy, Copy), copy
    return dcmread(BytesIO(copy.content))


@pytest.mark.parametrize("sample", [CT, MR, SAMPLES / "MR_small_RLE.dcm", SAMPLES / "MR_small_bigendian.dcm"])
def test_what_the_profile_keeps_stays_as_it_was(sample: Path) -> None:
    source, copy = dcmread(sample), clean(sample.read_bytes())
    assert copy.PixelData == source.PixelData
    assert copy.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    numbers = [
        element
        for element in source
        if element.VR in ("US", "SS", "DS", "IS", "FD", "FL", "UL")
        and not element.tag.is_private
        and element.tag.element
        and basic_profile().action(int(element.tag)) is None
    ]
    assert len(numbers) > 15
    for element in numbers:
        assert copy[element.tag].value == element.value, element.keyword
        assert str(copy[element.tag].value) == str(element.value), element.keyword
    for keyword in ("SOPClassUID", "Modality", "PhotometricInterpretation", "PatientPosition"):
        assert copy.get(keyword) == source.get(keyword)
    assert (copy.pixel_array == source.pixel_array).all()


def test_the_copy_says_what_was_done_to_it() -> None:
    copy = clean(CT.read_bytes())
    assert copy.PatientIdentityRemoved == "YES"
    assert copy.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [(item.CodeValue, item.CodingSchemeDesignator) for item in copy.DeidentificationMethodCodeSequence]
    assert codes == [("113100", "DCM"), ("113107", "DCM")]
    assert copy.PatientID == copy.PatientName and copy.PatientBirthDate == ""
    assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
    assert copy.preamble == b"\0" * 128
    assert "BurnedInAnnotation" not in copy  # nobody looked, so nobody says that there is none


def test_two_runs_agree_and_two_keys_do_not() -> None:
    content, other = CT.read_bytes(), Rules(Secret(b"x" * 32))
    assert deidentify(content, RULES) == deidentify(content, RULES)
    ours, theirs = clean(content), clean(content, other)
    for keyword in ("PatientID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate"):
        assert ours[keyword].value != theirs[keyword].value, keyword


@pytest.mark.parametrize("sample", sorted(path for path in SAMPLES.rglob("*") if path.is_file()), ids=lambda p: p.name)
def test_every_file_that_pydicom_ships_is_copied_or_refused_with_a_reason(sample: Path) -> None:
    content = sample.read_bytes()
    made = deidentify(content, RULES)
    if isinstance(made, Refusal):
        assert made is not Refusal.FAULT
        return
    with silent():
        copy, source = dcmread(BytesIO(made.content)), dcmread(BytesIO(content))
    if not source.file_meta.TransferSyntaxUID.is_compressed:  # the others are those of test_deidentify_streams
        assert copy.get("PixelData") == source.get("PixelData")
    assert copy.PatientID == made.name.split("/")[0]
    name = "".join(str(source.get("PatientName") or "no name").split("^")[:1])
    assert len(name) < 5 or name.encode() not in made.content


def as_class(sop_class: str, **attributes: Any) -> bytes:
    image = small_image()
    image.SOPClassUID = sop_class
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    return written(image, ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Refusal.NOT_DICOM),
        (b"\0" * 128 + b"DICM", Refusal.NO_CLASS),
        (as_class(EncapsulatedPDFStorage), Refusal.DOCUMENT),
        (as_class(BasicTextSRStorage), Refusal.REPORT),
        (as_class(TwelveLeadECGWaveformStorage), Refusal.SOUND),
        (as_class("1.2.840.10008.5.1.4.1.1.9.4.1"), Refusal.SOUND),
        (as_class("1.2.840.10008.5.1.4.1.1.66"), Refusal.RAW),
        (as_class("1.2.276.0.7230010.3.1.0.1"), Refusal.RAW),
        (as_class("1.2.840.10008.1.3.10"), Refusal.DIRECTORY),
        (as_class("1.2.840.10008.5.1.4.1.1.2", EncapsulatedDocument=b"%PDF"), Refusal.DOCUMENT),
        (as_class("1.2.840.10008.5.1.4.1.1.2", PixelData=bytes(130)), Refusal.WRONG_SIZE),
        (as_class("1.2.840.10008.5.1.4.1.1.2", PixelData=bytes(126)), Refusal.WRONG_SIZE),
        (as_class("1.2.840.10008.5.1.4.1.1.2", FloatPixelData=bytes(256)), Refusal.WRONG_SIZE),
    ],
)
def test_what_cannot_be_cleaned_is_refused(content: bytes, reason: Refusal) -> None:
    assert deidentify(content, RULES) is reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (as_class("1.2.840.10008.5.1.4.1.1.2", BurnedInAnnotation="YES"), Suspicion.SAYS_SO),
        (as_class("1.2.840.10008.5.1.4.1.1.2", RecognizableVisualFeatures="YES"), Suspicion.FACE),
        (as_class("1.2.840.10008.5.1.4.1.1.77.1.4"), Suspicion.FACE),
        (as_class("1.2.840.10008.5.1.4.1.1.6.1", Modality="US"), Suspicion.SCREEN),
        (as_class("1.2.840.10008.5.1.4.1.1.3.1"), Suspicion.SCREEN),
        (as_class(SecondaryCaptureImageStorage), Suspicion.SCREEN),
        (as_class("1.2.840.10008.5.1.4.1.1.12.1", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), Suspicion.SCREEN),
        (as_class("1.2.840.10008.5.1.4.1.1.2"), None),
        (as_class("1.2.840.10008.5.1.4.1.1.6.1", Modality="US", BurnedInAnnotation="NO"), None),
    ],
)
def test_what_waits_for_a_person(content: bytes, reason: Suspicion | None) -> None:
    made = deidentify(content, RULES)
    assert isinstance(made, Copy) and made.suspicion is reason
    looked_at = deidentify(content, RULES, lambda name: True)
    assert isinstance(looked_at, Copy) and looked_at.suspicion is None
    assert dcmread(BytesIO(looked_at.content)).BurnedInAnnotation == "NO"


def test_codes_of_the_standard_keep_their_meaning_and_others_lose_their_text() -> None:
    image = small_image()
    known, local = Dataset(), Dataset()
    known.CodeValue, known.CodingSchemeDesignator, known.CodeMeaning = "113100", "DCM", "Jane Doe's chest"
    local.CodeValue, local.CodingSchemeDesignator, local.CodeMeaning = "JD42", "99LOCAL", "Jane Doe"
    image.AnatomicRegionSequence = Sequence([known, local])
    one, other = clean(written(image, ExplicitVRLittleEndian)).AnatomicRegionSequence
    assert (one.CodeValue, one.CodingSchemeDesignator) == ("113100", "DCM")
    assert one.CodeMeaning == "Basic Application Confidentiality Profile"
    assert not list(other)


@given(st.binary(max_size=400), st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=60)
def test_damaged_files_are_refused_or_copied_and_never_stop_it(noise: bytes, at: int, end: int) -> None:
    content = CT.read_bytes()
    for damaged in (
        content[: 132 + end],
        content[:at] + noise + content[at + len(noise) :],
        content[: 132 + at] + noise,
        content[:132] + noise,
    ):
        assert isinstance(deidentify(damaged, RULES), Copy | Refusal)


_NEEDLE = "QZHYPOTHESIS"
_LEAVES = [
    (tag, vr)
    for tag, (vr, _, _, retired, keyword) in sorted(DicomDictionary.items())
    if vr in ("LO", "SH", "LT", "ST", "UT", "PN", "UC", "CS") and tag >> 16 > 8 and keyword
]
_BRANCHES = [tag for tag, (vr, *_) in sorted(DicomDictionary.items()) if vr == "SQ" and tag >> 16 > 8]


@st.composite
def nested(draw: st.DrawFn, depth: int = 0) -> Dataset:
    """A data set of a few texts, private ones and sequences, with the needle in each text."""
    dataset = Dataset()
    for tag, vr in draw(st.lists(st.sampled_from(_LEAVES), max_size=6)):
        around = draw(st.sampled_from(["{}", "CHEST {}", "{}^Jane", "x{}x", "{}\\HEAD", " {} "]))
        with config.disable_value_validation():
            dataset[tag] = DataElement(tag, vr, around.format(_NEEDLE))
    if draw(st.booleans()):
        group = draw(st.sampled_from([0x0009, 0x0019, 0x2005]))
        dataset[group << 16 | 0x10] = DataElement(group << 16 | 0x10, "LO", _NEEDLE)
        dataset[group << 16 | 0x1001] = DataElement(group << 16 | 0x1001, "UN", _NEEDLE.encode())
    if depth < 4:
        for tag in draw(st.lists(st.sampled_from(_BRANCHES), max_size=2)):
            items = draw(st.lists(nested(depth + 1), max_size=2))
            dataset[tag] = DataElement(tag, "SQ", Sequence(items))
    return dataset


@given(nested(), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
@settings(max_examples=60)
def test_nested_data_sets_hold_no_text_afterwards(extra: Dataset, syntax: str) -> None:
    with config.disable_value_validation():
        image = small_image()
        for element in extra:
            if element.keyword not in ("WaveformSequence", "DirectoryRecordSequence"):
                image.setdefault(element.tag, element)
        made = deidentify(written(image, syntax), RULES)
    assert isinstance(made, Copy)
    assert _NEEDLE.encode() not in made.content


def test_a_deflated_bomb_is_refused() -> None:
    import zlib

    from pydicom.uid import DeflatedExplicitVRLittleEndian

    content = written(small_image(), DeflatedExplicitVRLittleEndian)
    begin = 144 + int.from_bytes(content[140:144], "little")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = bomb.compress(bytes(1 << 24)) + bomb.flush()
    assert deidentify(content[:begin] + deflated, RULES) is Refusal.UNREADABLE
    assert isinstance(deidentify(content, RULES), Copy)


def test_deep_nesting_does_not_stop_it() -> None:
    content = written(small_image(), ExplicitVRLittleEndian)
    open_item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert isinstance(deidentify(content + open_item * 5000, RULES), Copy | Refusal)


def test_a_decoder_that_ends_its_process_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = Guard()
    monkeypatch.setattr("medfed.data.deidentify.decoded._guard", lambda: dying)
    monkeypatch.setattr("medfed.data.images.guard.COMMAND", ("-c", "import os; input(); os.abort()"))
    made = deidentify(CT.read_bytes(), RULES)
    assert isinstance(made, Copy) and made.suspicion is Suspicion.UNSEEN
    monkeypatch.undo()
    made = deidentify(CT.read_bytes(), RULES)
    assert isinstance(made, Copy) and made.suspicion is None


def test_a_person_who_interrupts_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Guard, "pixels", interrupt)
    with pytest.raises(KeyboardInterrupt):
        deidentify(CT.read_bytes(), RULES)
