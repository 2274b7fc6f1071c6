"""Names in whatever writing: none of them survives in a text that the site keeps."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from tests.unit.data.planted import SECRET, small_image, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.folding import foldings
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.kept import parse_kept
from medfed.data.deidentify.leftovers import has_leftovers
from medfed.data.deidentify.patient import patient_of
from medfed.data.deidentify.refusals import Refusal

RULES = Rules(SECRET, parse_kept(["SeriesDescription", "PatientSex"]))


def kept_text(name: str, text: str, charset: str | list[str] = "ISO_IR 192") -> str | None:
    """What is left of a series' description in the copy of a patient's file; '' where all of it is removed."""
    image = small_image()
    image.SpecificCharacterSet = charset
    image.PatientName, image.PatientSex, image.SeriesDescription = name, "M", text
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
