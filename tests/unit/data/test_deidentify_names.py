"""Names in whatever writing: none of them survives in a text that the site keeps."""

from __future__ import annotations

import time
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian
from tests.unit.data.planted import SECRET, small_image, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.folding import foldings
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.kept import parse_kept
from medfed.data.deidentify.leftovers import has_leftovers
from medfed.data.deidentify.patient import patient_of
from medfed.data.deidentify.reading import silent
from medfed.data.deidentify.refusals import Refusal
from medfed.data.deidentify.searching import Words

RULES = Rules(SECRET, parse_kept(["SeriesDescription", "PatientSex"]))


def kept_text(name: str, text: str, charset: str | list[str] = "ISO_IR 192", **attributes: str) -> str | None:
    """What is left of a series' description in the copy of a patient's file; '' where all of it is removed."""
    image = small_image()
    image.SpecificCharacterSet = charset
    image.PatientName, image.PatientSex, image.SeriesDescription = name, "M", text
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    made = deidentify(written(image, ExplicitVRLittleEndian), RULES)
    assert isinstance(made, Copy), made
    copy = dcmread(BytesIO(made.content))
    assert copy.PatientSex == "M"
    return copy.get("SeriesDescription", "")


JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
CHARSETS = ["", "ISO 2022 IR 87"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Li^Na", "chest of Li"),
        ("Wu^Bo", "repeat WU, lateral"),
        ("Smith^M", "follow-up M."),
        ("李明", "胸部 李明"),
        ("李明", "李先生 chest"),
        ("Li^Ming=李^明", "复查李明"),
        ("José^Ana", "JOSE again"),
        ("Jose^Ana", "for José"),
        ("Müller^Eva", "series Muller"),
        ("MULLER^Eva", "Müller, old"),
        ("Muller^Eva", "MÜLLER"),
        ("Müller^Eva", "Fr. Mueller"),
        ("Mueller^Eva", "Fr. Müller"),
        ("Łukasz^Ewa", "lukasz"),
        ("Groß^Jan", "GROSS"),
        (JAPANESE, "山田 thorax"),
        (JAPANESE, "太郎"),
        (JAPANESE, "ヤマダ"),
        (JAPANESE, "ﾔﾏﾀﾞ"),
        (JAPANESE, "ＹＡＭＡＤＡ"),
        ("Kim^Minsu=김^민수", "김민수님"),
        ("Müller^Eva", "Mu\u0308ller"),
        ("Müller^Eva", "M\u00adül\u200bler"),
    ],
)
def test_a_text_that_names_the_patient_is_removed(name: str, text: str) -> None:
    assert kept_text(name, text) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Li^Na", "Clinical follow-up"),
        ("Wu^Bo", "Wuerzburg protocol, lateral"),
        ("李^明", "胸部 正面"),
        ("Müller^Eva", "Muehle"),
        (JAPANESE, "胸部 2方向"),
    ],
)
def test_a_text_that_does_not_stays(name: str, text: str) -> None:
    assert kept_text(name, text) == text


@pytest.mark.parametrize(
    ("charset", "name", "text"),
    [
        ("ISO_IR 100", "José^Ana", "jose, ap"),
        ("GB18030", "Wang=王^小明", "王小明 chest"),
        (["", "ISO 2022 IR 87"], JAPANESE, "山田 thorax"),
        (["", "ISO 2022 IR 149"], "Kim^Minsu=김^민수", "김민수"),
    ],
)
def test_in_every_character_set(charset: str | list[str], name: str, text: str) -> None:
    assert kept_text(name, text, charset) == ""


@pytest.mark.parametrize("text", ["o MÜLLER o", "o muller o", "o 山田太郎 o"])
def test_the_second_look_reads_the_copys_own_character_set(text: str) -> None:
    source, target = small_image(), small_image()
    source.SpecificCharacterSet = "ISO_IR 192"
    source.PatientName = "Müller^Eva=山田^太郎"
    target.PatientName, target.PatientID, target.SeriesDescription = "P-1", "P-1", "nothing"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(target, keyword, "2.25.1")
    assert not has_leftovers(source, target, patient_of(source, SECRET))
    target.SeriesDescription = text
    assert has_leftovers(source, target, patient_of(source, SECRET))


def test_a_patient_whose_short_name_is_a_part_of_everything_is_not_refused() -> None:
    image = small_image()
    image.PatientName = "P^A"
    assert not isinstance(deidentify(written(image, ExplicitVRLittleEndian), RULES), Refusal)


def test_forms_of_a_word() -> None:
    assert foldings("Müller") == {"muller", "mueller"}
    assert foldings("ＳＴＲＡẞＥ") == {"strasse"}
    assert foldings("やまだ") == foldings("ヤマダ") == foldings("ﾔﾏﾀﾞ")
    assert foldings("김") == {"김"}


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("PatientID", "12-34-56", "chest MRN 12-34-56"),
        ("PatientID", "12-34-56", "chest MRN 123456"),
        ("PatientID", "123456", "chest MRN 12-34-56"),
        ("PatientID", "123456", "chest 12 34 56"),
        ("PatientID", "12345678", "chest 12/34/5678"),
        ("PatientID", "00123456", "chest #123456"),
        ("PatientID", "K.12/b", "chest k12b"),
        ("StudyID", "9988-77", "ref 998877"),
        ("RequestedProcedureID", "RP 4711", "rp4711"),
        ("AccessionNumber", "A-4711", "acc a4711"),
        ("MedicalRecordLocator", "LOC88123", "see loc88123"),
        ("FillerOrderNumberImagingServiceRequest", "55-66", "order 5566"),
        ("PlacerOrderNumberImagingServiceRequest", "77-88", "order 77 88"),
    ],
)
def test_a_text_with_an_id_in_any_format_is_removed(keyword: str, value: str, text: str) -> None:
    assert kept_text("Doe^Jane", text, **{keyword: value}) == ""
    assert kept_text("Doe^Jane", "chest 4 mm, 55 slices", **{keyword: value}) == "chest 4 mm, 55 slices"


@pytest.mark.parametrize(
    "text",
    [
        "CT 2024-03-05",
        "CT 20240305",
        "CT 5.3.2024",
        "CT 05/03/24",
        "CT 03/05/2024",
        "CT 240305 old",
        "born 2 January: 02.01.1960",
        "born 19600102",
        "CT ２０２４.０３.０５",
        "seen 2024.03.07",
    ],
)
def test_a_text_with_a_true_day_is_removed(text: str) -> None:
    """One day known tells the shift, and with it all the days."""
    days = {"StudyDate": "20240305", "PatientBirthDate": "19600102", "AcquisitionDateTime": "20240307101500"}
    assert kept_text("Doe^Jane", text, **days) == ""
    for other in ("CT 2019-11-23", "CT 2024", "T1 640x480 5 mm"):
        assert kept_text("Doe^Jane", other, **days) == other


def test_the_second_look_finds_a_true_day_in_a_number() -> None:
    image = small_image()
    image.StudyDate, image.SeriesNumber = "20240305", "20240306"
    assert isinstance(deidentify(written(image, ExplicitVRLittleEndian), RULES), Copy)
    image.SeriesNumber = "20240305"
    assert deidentify(written(image, ExplicitVRLittleEndian), RULES) is Refusal.LEFT_OVER


def test_a_shifted_day_that_is_also_a_true_one_is_no_leftover() -> None:
    image = small_image()
    shift = patient_of(image, SECRET).shift
    image.StudyDate, image.AcquisitionDate = "20240305", shift.value("DA", "20240305")
    made = deidentify(written(image, ExplicitVRLittleEndian), RULES)
    assert isinstance(made, Copy)
    assert dcmread(BytesIO(made.content)).StudyDate == image.AcquisitionDate


@given(st.sets(st.text("abc", min_size=2, max_size=5), min_size=1), st.text("abcd", max_size=30))
def test_many_words_are_found_as_few_are(words: set[str], text: str) -> None:
    many = Words([*words, *(f"z{number}" for number in range(300))])
    assert Words(words).stand_in(text) == many.stand_in(text) == any(word in text for word in words)


def test_the_search_for_many_words_reads_a_text_about_once() -> None:
    """Each place of the text is looked at for each length of words that begin so, not for each word."""
    words = Words([f"{number:05}qwert" for number in range(20_000)])
    text = "1.25\\00007" * 1000
    assert sum(1 for _ in words._candidates(text)) < len(text)
    assert not words.stand_in(text) and words.stand_in(text + "00007qwert")


def test_the_second_look_takes_no_time_of_names_by_numbers() -> None:
    """Sixty-six times as many names would take as many times as long, each looked for on its own."""
    outlines, target = Dataset(), small_image()
    outlines.ContourData = ["1.25"] * 40_000
    target.ROIContourSequence = Sequence([outlines])
    target.PatientName = target.PatientID = "P-1"

    def seconds(names: int) -> float:
        source = small_image()
        source.OtherPatientNames = [f"{number:05}qwert" for number in range(names)]
        source.StudyInstanceUID = source.SeriesInstanceUID = source.SOPInstanceUID = source.FrameOfReferenceUID = ""
        patient = patient_of(source, SECRET)
        start = time.process_time()
        with silent():
            assert not has_leftovers(source, target, patient)
        return time.process_time() - start

    assert min(seconds(20_000) for _ in range(2)) < 4 * min(seconds(300) for _ in range(3))
