"""DICOM files with an identifier of its own in every place that can hold one, and the search for any of them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import config, dcmread, dcmwrite
from pydicom.datadict import DicomDictionary, RepeatersDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.copying import Copying, settings_of
from medfed.data.deidentify.dates import shift_of
from medfed.data.deidentify.folders import Folders, opened
from medfed.data.deidentify.kept import Kept
from medfed.data.deidentify.secret import Secret

FIRST_DAY = datetime.date(2031, 1, 1)
DAYS = 250
"""Planted days are of a window as long: a shift that is longer leads out of it."""
_CARED_FOR = frozenset(
    {
        "BurnedInAnnotation",
        "PhotometricInterpretation",
        "PixelData",
        "SOPClassUID",
        "SamplesPerPixel",
        "SpecificCharacterSet",
    }
)
_REFUSED = frozenset({"EncapsulatedDocument", "WaveformSequence", "DirectoryRecordSequence"})
_WORDY = {"DS": "LO", "IS": "LO"}
"""Numbers as text that is none: they are written as texts, and in files without VRs read as numbers."""
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "DS", "IS"})


SECRET = Secret(bytes(range(32)))
NOTHING = Kept()


class Garden:
    """Makes identifiers, and knows all that it made: texts and bytes by the place where each was planted."""

    def __init__(self, seed: str) -> None:
        self.planted: dict[bytes, str] = {}
        self._seed = seed
        self._count = 0

    def text(self, place: str) -> str:
        """Ten letters and digits that stand nowhere else."""
        self._count += 1
        made = "QZ" + base64.b32encode(hashlib.sha256(f"{self._seed}{self._count}".encode()).digest())[:8].decode()
        self.planted[made.encode()] = place
        return made

    def uid(self, place: str) -> str:
        self._count += 1
        made = f"1.2.826.0.1.987654.{int(hashlib.sha256(self._seed.encode()).hexdigest()[:8], 16)}.{self._count}"
        self.planted[made.encode()] = place
        return made

    def day(self, place: str) -> str:
        self._count += 1
        made = (FIRST_DAY + datetime.timedelta(self._count % DAYS)).strftime("%Y%m%d")
        self.planted[made.encode()] = place
        return made

    def value(self, vr: str, place: str) -> Any:
        """An identifier that a value of this VR can hold."""
        if vr in _TEXTS:
            return self.text(place)
        if vr == "UI":
            return self.uid(place)
        if vr == "DA":
            return self.day(place)
        if vr == "DT":
            return f"{self.day(place)}101112.123456+0100"
        if vr == "AS":
            self.planted[b"077Y"] = place
            return "077Y"
        if vr.startswith("O") or vr == "UN":
            return self.text(place).encode()
        return None


def distant_patient(secret: Secret) -> str:
    """A patient's id whose dates are shifted out of the window of planted days."""
    ids = (f"MRN-{number}" for number in range(1000))
    return next(each for each in ids if shift_of(secret, each).days >= DAYS)


PATIENT = distant_patient(SECRET)


def unknown_element(tag: int, value: bytes) -> bytes:
    """An element of explicit VR that comes as UN (PS3.5, 7.1.2)."""
    value += b"\0" * (len(value) % 2)
    return (
        (tag >> 16).to_bytes(2, "little")
        + (tag & 0xFFFF).to_bytes(2, "little")
        + b"UN\0\0"
        + len(value).to_bytes(4, "little")
        + value
    )


@cache
def _attributes(rich: bool) -> tuple[tuple[int, str, str], ...]:
    """(tag, VR, keyword) of all attributes that can be planted in, or of the first of each VR."""
    chosen = [
        (tag, vrs.split(" or ")[-1], keyword)
        for tag, (vrs, _, _, _, keyword) in DicomDictionary.items()
        if tag >> 16 not in (0, 2, 4, 0xFFFE) and keyword and tag & 0xFFFF and keyword not in _CARED_FOR | _REFUSED
    ]
    first = {vr: (tag, vr, keyword) for tag, vr, keyword in reversed(chosen)}
    return tuple(chosen if rich else first.values())


def filled(garden: Garden, place: str, *, rich: bool = True) -> Dataset:
    """A data set with an identifier in every attribute of the dictionary, or in one of each VR, and in private ones."""
    dataset = Dataset()
    for tag, vr, keyword in _attributes(rich):
        value = garden.value(vr, f"{place}/{keyword}")
        if value is not None:
            dataset[tag] = DataElement(tag, _WORDY.get(vr, vr), value)
    for group in (0x0009, 0x0019, 0x7FE1):
        dataset[group << 16 | 0x10] = DataElement(group << 16 | 0x10, "LO", garden.text(f"{place}/creator"))
        for number, vr in enumerate(("LO", "PN", "UN", "OB", "UT", "UI", "DA", "SH"), 0x1001):
            dataset[group << 16 | number] = DataElement(group << 16 | number, vr, garden.value(vr, f"{place}/private"))
        inner = Dataset()
        inner.PatientName = garden.text(f"{place}/private sequence")
        dataset[group << 16 | 0x1020] = DataElement(group << 16 | 0x1020, "SQ", Sequence([inner]))
    dataset[0x001200F0] = DataElement(0x001200F0, "UN", garden.text(f"{place}/unknown").encode())
    return dataset


def planted_file(garden: Garden, syntax: str, patient: str, *, sequences: int | None = None) -> bytes:
    """A whole CT file in a transfer syntax: everything planted, three deep, curves, overlays, meta, preamble.

    sequences: in how many of the dictionary's; all of them, if not given.
    """
    dataset = filled(garden, "root")
    dataset.SOPClassUID, dataset.PatientID = CTImageStorage, patient
    garden.planted[patient.encode()] = "PatientID"
    items = [(tag, keyword) for tag, (vr, *_, keyword) in DicomDictionary.items() if vr == "SQ"]
    for tag, keyword in items[:sequences]:
        if keyword not in _REFUSED and tag >> 16 not in (0, 4):
            dataset[tag] = DataElement(tag, "SQ", Sequence([filled(garden, keyword, rich=False)]))
    third = filled(garden, "third")
    second = filled(garden, "second", rich=False)
    second.SourceImageSequence = Sequence([third])
    first = filled(garden, "first", rich=False)
    first.ReferencedSeriesSequence = Sequence([second])
    dataset.DerivationImageSequence = Sequence([first])
    _plant_repeating(dataset, garden)
    _draw(dataset)
    dataset[0xFFFCFFFC] = DataElement(0xFFFCFFFC, "OB", garden.text("trailing padding").encode())
    return written(dataset, syntax, garden)


def written(dataset: Dataset, syntax: str, garden: Garden | None = None) -> bytes:
    """The bytes of a file; with a garden, identifiers are planted into preamble and meta."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    dataset.preamble = b"\0" * 128
    if garden is not None:
        for keyword in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle", "ImplementationVersionName"):
            setattr(meta, keyword, garden.text(f"meta/{keyword}"))
        meta.ImplementationClassUID = garden.uid("meta/ImplementationClassUID")
        meta.PrivateInformationCreatorUID = garden.uid("meta/PrivateInformationCreatorUID")
        meta.PrivateInformation = garden.text("meta/PrivateInformation").encode()
        dataset.preamble = garden.text("preamble").encode().ljust(128, b"\0")
    dataset.file_meta = meta
    buffer = BytesIO()
    with config.disable_value_validation():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _plant_repeating(dataset: Dataset, garden: Garden) -> None:
    for mask, (vrs, _, _, _, keyword) in RepeatersDictionary.items():
        if keyword == "AudioSampleData" or not keyword:
            continue
        tag, vr = int(mask.replace("x", "0"), 16), vrs.split(" or ")[-1]
        value = garden.value(vr, f"repeating/{keyword}")
        if value is not None and tag >> 16 not in (0x0028, 0x7F00):
            dataset[tag] = DataElement(tag, _WORDY.get(vr, vr), value)


def _draw(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    if "NumberOfFrames" in dataset:
        del dataset.NumberOfFrames
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):  # beside Pixel Data, a file is refused
        if keyword in dataset:
            del dataset[keyword]
    dataset[0x7FE00010] = DataElement(0x7FE00010, "OW", bytes(range(256)) * 2)


def contents(folder: Path) -> Iterator[bytes]:
    """All bytes and names below a folder; of deflated data sets also what they inflate to."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            raw = path.read_bytes()
            yield raw
            if raw[128:132] == b"DICM" and dcmread(path).file_meta.TransferSyntaxUID.is_deflated:
                begin = 144 + int.from_bytes(raw[140:144], "little")
                yield zlib.decompress(raw[begin:], -zlib.MAX_WBITS)


_PLANTED = re.compile(rb"qz[a-z2-7]{8}|1\.2\.826\.0\.1\.987654\.[0-9]+\.[0-9]+|077y|mrn-[0-9]+", re.IGNORECASE)
_DAY = re.compile(rb"(?<![0-9.])(2031[0-9]{4})(?![0-9]{8})")


def found(garden: Garden, folder: Path) -> list[str]:
    """Where the identifiers were planted that are still below a folder, in whatever case."""
    haystack = b"\0".join(contents(folder))
    spelled = {each.lower() for each in (*_PLANTED.findall(haystack), *_DAY.findall(haystack))}
    return [place for needle, place in garden.planted.items() if needle.lower() in spelled]


def copied(folder: Path, files: dict[str, bytes], kept: Kept = NOTHING, accepted: tuple[str, ...] = ()) -> Folders:
    """Write files into a source, de-identify it, and give the folders."""
    source = folder / "source"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    rules = Rules(SECRET, kept)
    folders = opened(source, folder / "copy", None, settings_of(rules))
    assert len(list(Copying(folders, rules, accepted))) == len(files)
    return folders


def copies(folders: Folders) -> list[Dataset]:
    return [dcmread(path) for path in sorted(folders.target.rglob("*.dcm"))]


def small_image() -> Dataset:
    """A CT image of 8 by 8 pixels and little else."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.3.4.5"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.9"
    image.Modality, image.PatientID, image.PatientName = "CT", PATIENT, "Doe^Jane"
    image.Rows = image.Columns = 8
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = bytes(range(128))
    return image
