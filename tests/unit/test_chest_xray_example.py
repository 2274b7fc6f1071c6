"""The example's phantoms obey the law that they are said to obey, and its machines write what is said of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("pydicom")
FOLDER = Path(__file__).parents[2] / "examples" / "chest_xray"


@pytest.fixture(scope="module")
def phantom() -> ModuleType:
    return _module("phantom")


@pytest.fixture(scope="module")
def make_data() -> ModuleType:
    return _module("make_data")


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(FOLDER))


def test_an_ellipsoid_is_as_thick_as_geometry_says(phantom) -> None:
    x, y = np.mgrid[-3:3:601j, -3:3:601j]
    thickness = phantom._ellipsoid(x, y, 1.0, 2.0, 0.5)
    assert thickness.max() == pytest.approx(1.0)
    assert thickness.sum() * 0.01**2 == pytest.approx(4 / 3 * np.pi * 1.0 * 2.0 * 0.5, rel=1e-3)  # its volume


def test_attenuation_is_between_that_of_air_and_of_bone_as_thick_as_the_body(phantom) -> None:
    exposure = phantom.Exposure(64, 64, photons=1e5, blur=0.0)
    total = phantom._attenuation(np.random.default_rng(0), exposure, ill=False)
    assert total.min() == 0 and phantom.SOFT * 18 < total.max() < phantom.BONE * 22


def test_photons_are_counted_with_their_own_noise(phantom) -> None:
    exposure = phantom.Exposure(200, 200, photons=10_000, blur=0.0)
    air = phantom.transmitted(np.random.default_rng(0), exposure, ill=False)[:, :3]
    assert air.mean() == pytest.approx(1, abs=0.002)
    assert air.std() == pytest.approx(1 / np.sqrt(10_000), rel=0.1)  # a Poisson number's


def test_a_consolidation_fills_air_with_fluid_and_nothing_else(phantom) -> None:
    x, y = np.meshgrid(np.linspace(-18, 18, 96), np.linspace(-20, 20, 96))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        air = phantom._lungs(x, y, rng)
        filled = phantom._consolidation(x, y, air, rng)
        assert (filled >= 0).all() and (filled <= 0.9 * air).all()
        assert (phantom.SOFT - phantom.LUNG) * filled.max() > 0.2  # a fifth less light at least, at its middle


def test_machines_write_what_their_makers_say(make_data, tmp_path) -> None:
    from pydicom import dcmread

    for hospital in make_data.HOSPITALS:
        make_data.write_hospital(hospital, tmp_path / hospital.name, patients=3)
        lines = (tmp_path / hospital.name / "findings.csv").read_text().splitlines()
        broken, seen = 0, {machine.maker: machine for machine in hospital.machines}
        for path in (tmp_path / hospital.name / "export").rglob("IM*"):
            image = dcmread(path)
            if "PixelData" not in image:
                broken += 1
                continue
            machine = seen[image.Manufacturer]
            assert image.file_meta.TransferSyntaxUID == machine.syntax
            assert image.pixel_array.shape == (machine.exposure.rows, machine.exposure.columns)
            low, high = (
                (-(2 ** (machine.bits - 1)), 2 ** (machine.bits - 1)) if machine.signed else (0, 2**machine.bits)
            )
            assert low <= image.pixel_array.min() < image.pixel_array.max() < high
            assert f"{image.AccessionNumber},normal" in lines or f"{image.AccessionNumber},pneumonia" in lines
        assert broken == hospital.broken
