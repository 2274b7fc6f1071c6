"""Text drawn into pixels: how much of it the check finds, and what it takes for text."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.phantoms import KINDS, phantom, with_text
from pydicom.uid import ExplicitVRLittleEndian
from tests.unit.data.planted import SECRET, small_image, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.burned_in import Suspicion
from medfed.data.deidentify.glyphs import has_text
from medfed.data.deidentify.instance import Copy, deidentify


@pytest.mark.parametrize("kind", KINDS)
def test_bright_overlays_are_found_and_plain_images_pass(kind: str) -> None:
    hits = misses = alarms = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        image = phantom(kind, rng)
        alarms += has_text(image)
        found = has_text(with_text(image, rng, size=18, ink=1.0))
        hits, misses = hits + found, misses + (not found)
    assert hits >= 3 and alarms <= 1


@pytest.mark.parametrize("frame", [np.zeros((40, 40)), np.full((3, 3), np.nan), np.ones((1, 1)), np.eye(64)])
def test_odd_frames_hold_no_text(frame: np.ndarray) -> None:
    assert not has_text(frame)


def test_dark_text_and_coloured_text_are_found() -> None:
    rng = np.random.default_rng(3)
    image = phantom("ct", rng)
    drawn = with_text(image, rng, size=20, ink=1.0)
    assert has_text(4095 - drawn)
    assert has_text(np.stack([image, drawn, image], axis=2))


def test_a_file_with_text_in_its_last_frame_waits_for_a_person() -> None:
    rng = np.random.default_rng(5)
    plain = phantom("mr", rng)
    image = small_image()
    image.Rows, image.Columns = plain.shape
    for frames, reason in (([plain, plain], None), ([plain, with_text(plain, rng, size=18, ink=1.0)], Suspicion.TEXT)):
        image.NumberOfFrames = len(frames)
        image.PixelData = b"".join(frame.tobytes() for frame in frames)
        made = deidentify(written(image, ExplicitVRLittleEndian), Rules(SECRET))
        assert isinstance(made, Copy) and made.suspicion is reason
