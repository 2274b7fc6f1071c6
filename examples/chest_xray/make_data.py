"""Write two hospitals' DICOM exports of made-up chest X-rays, each with its own table of findings.

usage: make_data.py [FOLDER [PATIENTS]]. Below FOLDER: HOSPITAL/export/… and HOSPITAL/findings.csv, a line a study.
Nobody in it exists: names, dates and numbers are made up, and so are the makers of the machines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from phantom import Exposure, transmitted
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SIGNAL_RANGE = 6.5
"""Natural logarithms from the unattenuated beam down, over which a detector's values are spread."""


@dataclass(frozen=True)
class Machine:
    """A make of X-ray machine, and how it writes. inverted: MONOCHROME1, low values are shown bright.

    slope, intercept: the rescale that it states, if it does. windows: (centre, width) pairs in rescaled values.
    """

    maker: str
    sop_class: str
    exposure: Exposure
    bits: int
    syntax: str
    inverted: bool = False
    signed: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    windows: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Hospital:
    """Which machines a hospital has, and how often its patients are ill."""

    name: str
    machines: tuple[Machine, ...]
    ill: float
    broken: int = 0


HOSPITALS = (
    Hospital(
        "Northgate",
        (
            Machine(
                maker="Ortho-Imago",
                sop_class=ComputedRadiographyImageStorage,
                exposure=Exposure(320, 288, photons=40_000, blur=0.9),
                bits=12,
                syntax=JPEG2000Lossless,
                inverted=True,
                windows=((2048.0, 4096.0), (2300.0, 1800.0)),
            ),
        ),
        ill=0.45,
    ),
    Hospital(
        "Southfield",
        (
            Machine(
                maker="Radiofakt",
                sop_class=ComputedRadiographyImageStorage,
                exposure=Exposure(256, 256, photons=15_000, blur=0.6),
                bits=16,
                syntax=RLELossless,
                signed=True,
                slope=0.0625,
                intercept=2048.0,
                windows=((2048.0, 4095.0),),
            ),
            Machine(
                maker="Lumen Medical Works",
                sop_class=DigitalXRayImageStorageForPresentation,
                exposure=Exposure(384, 320, photons=80_000, blur=0.5),
                bits=14,
                syntax=JPEGLSLossless,
                windows=((8192.0, 16384.0), (9000.0, 9000.0), (5000.0, 6000.0)),
            ),
        ),
        ill=0.6,
        broken=1,
    ),
)
_FIRST, _LAST = ("Ada", "José", "Mei", "Otto", "Ines", "Bo"), ("Müller", "Li", "O'Brien", "Sato", "Nowak", "Diaz")


@dataclass(frozen=True)
class Study:
    """One visit of a patient: one or two pictures by one machine."""

    patient: str
    name: str
    born: str
    accession: str
    day: str
    machine: Machine
    ill: bool
    pictures: int
    uid: str


def studies(hospital: Hospital, patients: int, rng: np.random.Generator) -> Iterator[Study]:
    """The visits of so many patients: each comes once or twice."""
    accession = 0
    for number in range(patients):
        name = f"{rng.choice(_LAST)}^{rng.choice(_FIRST)}"
        born = f"{rng.integers(1930, 2005)}{rng.integers(1, 13):02}{rng.integers(1, 29):02}"
        patient = f"{hospital.name[:2].upper()}{10_000 + 37 * number}"
        for visit in range(int(rng.integers(1, 3))):
            accession += 1
            yield Study(
                patient=patient,
                name=name,
                born=born,
                accession=f"{hospital.name[0]}-{accession:05}",
                day=f"{2019 + visit}{rng.integers(1, 13):02}{rng.integers(1, 29):02}",
                machine=hospital.machines[int(rng.integers(len(hospital.machines)))],
                ill=bool(rng.random() < hospital.ill),
                pictures=1 + int(rng.random() < 0.25),
                uid=_uid(hospital.name, patient, str(visit)),
            )


def stored_values(machine: Machine, transmission: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a machine writes: its detector's logarithm of the signal, over its bits; (rows, columns).

    Film is dark where much light falls. MONOCHROME1 is shown so as it is; others store the turned-over values.
    """
    bright = np.clip(1 + np.log(transmission) / SIGNAL_RANGE, 0, 1)
    value = (bright if machine.inverted else 1 - bright) * (2**machine.bits - 1)
    if machine.signed:
        return np.round(value - 2 ** (machine.bits - 1)).astype(np.int16)
    return np.round(value).astype(np.uint16)


def image(study: Study, number: int, values: np.ndarray[Any, Any]) -> Dataset:
    """A picture as its machine writes it, with the identifiers that a hospital's export has."""
    machine, ds = study.machine, Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = machine.sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = _uid(study.uid, "picture", str(number))
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = study.name, study.patient, study.born
    ds.AccessionNumber, ds.StudyInstanceUID, ds.SeriesInstanceUID = study.accession, study.uid, _uid(study.uid, "s")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = study.day
    ds.StudyTime, ds.InstitutionName, ds.ReferringPhysicianName = "081500", "Made-up Hospital", "Nobody^Anna"
    ds.Modality = "CR" if machine.sop_class == ComputedRadiographyImageStorage else "DX"
    ds.Manufacturer, ds.BodyPartExamined, ds.ViewPosition = machine.maker, "CHEST", "PA"
    ds.ImageType, ds.BurnedInAnnotation = ["ORIGINAL", "PRIMARY"], "NO"
    ds.InstanceNumber, ds.SeriesNumber = number, 1
    block = ds.private_block(0x0019, f"{machine.maker.upper()} HEADER", create=True)
    block.add_new(0x01, "LO", f"taken for {study.name}")
    block.add_new(0x02, "DS", "0.8")
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 16, machine.bits, machine.bits - 1
    ds.PhotometricInterpretation = "MONOCHROME1" if machine.inverted else "MONOCHROME2"
    ds.PixelRepresentation = int(machine.signed)
    ds.Rows, ds.Columns = values.shape
    if (machine.slope, machine.intercept) != (1.0, 0.0):
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = machine.slope, machine.intercept, "US"
    ds.WindowCenter = [centre for centre, _ in machine.windows]
    ds.WindowWidth = [width for _, width in machine.windows]
    ds.PixelData = values.tobytes()
    ds.compress(machine.syntax, generate_instance_uid=False)
    return ds


def write_hospital(hospital: Hospital, folder: Path, patients: int) -> None:
    """Write a hospital's export and findings."""
    rng = np.random.default_rng([17, *hospital.name.encode()])
    lines, written = ["accession,finding"], list[Path]()
    for study in studies(hospital, patients, rng):
        lines.append(f"{study.accession},{'pneumonia' if study.ill else 'normal'}")
        for number in range(1, study.pictures + 1):
            values = stored_values(study.machine, transmitted(rng, study.machine.exposure, ill=study.ill))
            path = folder / "export" / study.patient / study.accession / f"IM{number:04}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image(study, number, values).save_as(path, enforce_file_format=True)
            written.append(path)
    for path in written[: hospital.broken]:
        path.write_bytes(path.read_bytes()[:700])  # a transfer that broke off
    (folder / "findings.csv").write_text("\n".join(lines) + "\n")


def _uid(*parts: str) -> str:
    return generate_uid(entropy_srcs=list(parts))


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 22
    for each in HOSPITALS:
        write_hospital(each, target / each.name, count)
