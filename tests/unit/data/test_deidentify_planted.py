"""Identifiers planted in every kind of place, and none found in the copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from tests.unit.data.planted import (
    PATIENT,
    Garden,
    contents,
    copied,
    copies,
    filled,
    found,
    planted_file,
    small_image,
    unknown_element,
    written,
)

from medfed.data.deidentify.kept import parse_kept

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_no_planted_identifier_is_in_the_copy(tmp_path: Path, syntax: str) -> None:
    garden = Garden(syntax)
    sequences = None if syntax == ExplicitVRLittleEndian else 60
    content = planted_file(garden, syntax, PATIENT, sequences=sequences)
    name = f"{garden.text('folder')}/{garden.text('file')}.dcm"
    folders = copied(tmp_path, {name: content})
    (copy,) = copies(folders)
    assert len(garden.planted) > (6000 if sequences else 60000)
    assert len(found(garden, folders.source)) > 0.99 * len(garden.planted)  # the search finds what is there
    assert found(garden, folders.target) == []
    assert copy.PixelData == bytes(range(256)) * 2
    assert copy.DerivationImageSequence[0].ReferencedSeriesSequence[0].SourceImageSequence[0] is not None


def test_the_search_finds_what_is_hidden_by_deflating(tmp_path: Path) -> None:
    garden = Garden("deflated")
    (tmp_path / "file.dcm").write_bytes(planted_file(garden, DeflatedExplicitVRLittleEndian, PATIENT, sequences=5))
    assert len(found(garden, tmp_path)) > 2000


@pytest.mark.parametrize(
    ("charset", "encoding", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müßigbröd^Åse"),
        ("ISO_IR 144", "iso8859_5", "Люксембург^Роза"),
        ("ISO_IR 192", "utf-8", "Wáng^Xiǎodōng=王^小東"),
        ("GB18030", "gb18030", "Wang^XiaoDong=王^小东"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "iso2022_jp", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"),
        (["", "ISO 2022 IR 149"], "euc_kr", "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_in_any_character_set(tmp_path: Path, charset: str | list[str], encoding: str, name: str) -> None:
    image = small_image()
    image.SpecificCharacterSet = charset
    image.PatientName = name
    image.OperatorsName = name
    image.StudyDescription = image.InstitutionName = name.rsplit("=", maxsplit=1)[-1]
    folders = copied(tmp_path, {"file.dcm": written(image, ExplicitVRLittleEndian)})
    assert len(copies(folders)) == 1
    haystack = b"\0".join(contents(folders.target))
    words = [word for part in name.split("=") for word in part.split("^")]
    for spelled in (encoding, "utf-8", "utf-16-le"):
        for word in words:
            assert word.encode(spelled, errors="ignore")[:4] not in haystack or len(word.encode(spelled, "ignore")) < 2


def test_sequences_and_names_that_come_as_unknown_are_understood_or_left_out(tmp_path: Path) -> None:
    garden, image = Garden("unknown"), small_image()
    image[0x00181020] = DataElement(0x00181020, "OB", garden.text("LO as OB").encode())
    image[0x00280030] = DataElement(0x00280030, "UT", garden.text("DS as UT"))
    item = b"\x10\x00\x10\x00\x0a\x00\x00\x00" + garden.text("name in a sequence as UN").encode()
    unknown = {
        0x00100010: garden.text("name as UN").encode(),
        0x00081115: b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item,
        0x00180099: garden.text("no attribute").encode(),
        0x00180015: garden.text("text as UN").encode(),
    }
    content = written(image, ExplicitVRLittleEndian) + b"".join(unknown_element(*each) for each in unknown.items())
    folders = copied(tmp_path, {"file.dcm": content})
    assert len(copies(folders)) == 1
    assert len(found(garden, folders.source)) == len(garden.planted) == 6
    assert found(garden, folders.target) == []


def test_kept_attributes_stay_and_are_watched(tmp_path: Path) -> None:
    image = small_image()
    image.PatientName, image.PatientAge, image.PatientSex = "Lovelace^Augusta", "097Y", "F"
    image.ManufacturerModelName, image.SeriesDescription = "SOMATOM 7", "follow-up of lady lovelace"
    image.add(DataElement(0x00190010, "LO", "SAFE MAKER 1"))
    image.add(DataElement(0x00191008, "FD", 2.5))
    image.add(DataElement(0x00191009, "LO", "Augusta"))
    kept = parse_kept(["PatientAge", "PatientSex", "ManufacturerModelName", "SeriesDescription", "0019,SAFE MAKER 1"])
    (copy,) = copies(copied(tmp_path, {"file.dcm": written(image, ExplicitVRLittleEndian)}, kept))
    assert (copy.PatientAge, copy.PatientSex, copy.ManufacturerModelName) == ("090Y", "F", "SOMATOM 7")
    assert "SeriesDescription" not in copy
    assert copy[0x00191008].value == 2.5 and 0x00191009 not in copy
    codes = [item.CodeValue for item in copy.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108", "113111"]
    assert list(copy.DeidentificationMethod)[2:] == [f"kept: {name}" for name in kept.names]


def test_a_copy_names_no_option_that_was_not_taken(tmp_path: Path) -> None:
    kept = parse_kept(["ManufacturerModelName"])
    (copy,) = copies(copied(tmp_path, {"file.dcm": written(small_image(), ExplicitVRLittleEndian)}, kept))
    assert [item.CodeValue for item in copy.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert copy.DeidentificationMethod[-1] == "kept: ManufacturerModelName"


def test_the_report_has_no_identifier_and_counts_each_file(tmp_path: Path) -> None:
    garden = Garden("report")
    content = planted_file(garden, ExplicitVRLittleEndian, PATIENT, sequences=5)
    folders = copied(tmp_path, {f"{garden.text('folder')}/a.dcm": content, "b.dcm": content, "notes.txt": b"hello"})
    report = json.loads(folders.report.read_text())
    assert (report["files"], report["copied"], report["doubles"]) == (3, 1, 1)
    assert report["refused"] == {"not_dicom": 1}
    assert report["finished"] is True and report["patients"] == 1
    assert sum(report["attributes"].values()) > 2500
    assert found(garden, folders.target) == []


def test_references_are_kept_between_files(tmp_path: Path) -> None:
    first, second = small_image(), small_image()
    second.SOPInstanceUID = "1.2.3.4.6"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CTImageStorage, first.SOPInstanceUID
    second.SourceImageSequence = Sequence([reference])
    files = {"1.dcm": written(first, ExplicitVRLittleEndian), "2.dcm": written(second, ExplicitVRLittleEndian)}
    by_reference = sorted(copies(copied(tmp_path, files)), key=lambda copy: "SourceImageSequence" in copy)
    one, two = by_reference
    assert two.SourceImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert two.SourceImageSequence[0].ReferencedSOPClassUID == CTImageStorage
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert one[keyword].value == two[keyword].value
    assert one.SOPInstanceUID != two.SOPInstanceUID


def test_a_nested_data_set_of_every_kind_is_clean_under_any_kept_sequence(tmp_path: Path) -> None:
    garden, image = Garden("nested"), small_image()
    image.SharedFunctionalGroupsSequence = Sequence([filled(garden, "shared")])
    image.PerFrameFunctionalGroupsSequence = Sequence([filled(garden, f"frame {k}") for k in range(2)])
    folders = copied(tmp_path, {"file.dcm": written(image, ImplicitVRLittleEndian)})
    assert len(copies(folders)) == 1
    assert found(garden, folders.target) == []
