"""Text burned into images: how much of it the check of pixels finds, and how often it sees text where there is none.

    python -m benchmarks.burned_in --json burned_in.json

Images are phantoms of six kinds (:mod:`benchmarks.phantoms`), as many of each; the text is two lines of invented names,
dates and numbers in one of four fonts, with soft or hard edges, in a corner or, in three of ten images, anywhere.

- ``alarms/KIND``: the share of images without text that are taken to have some.
- ``found/SIZE/INK``: the share of images with text, of that font size in pixels and that brightness, in which it is
  seen.
- ``seconds``: of processor time for an image of 512 by 512 pixels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.phantoms import KINDS, phantom, with_text
from benchmarks.rows import Row, print_rows, write_rows
from medfed.data.deidentify.glyphs import has_text

SIZES = (9, 12, 16, 24, 36)
INKS = (1.0, 0.8)


def alarms(kind: str, images: int) -> float:
    """The share of images without text that the check suspects."""
    return float(np.mean([has_text(phantom(kind, np.random.default_rng([1, seed]))) for seed in range(images)]))


def found(kind: str, images: int, size: int, ink: float) -> float:
    """The share of images with text in which the check sees it."""
    seen = []
    for seed in range(images):
        rng = np.random.default_rng([2, seed])
        seen.append(has_text(with_text(phantom(kind, rng), rng, size=size, ink=ink)))
    return float(np.mean(seen))


def measure(images: int) -> list[Row]:
    """The rows of one run, over as many images of each kind."""
    rows = [Row(f"alarms/{kind}", alarms(kind, images), "share", None, None, f"{images} images") for kind in KINDS]
    peer = f"{images * len(KINDS)} images"
    for size in SIZES:
        for ink in INKS:
            share = float(np.mean([found(kind, images, size, ink) for kind in KINDS]))
            rows.append(Row(f"found/{size}/{ink}", share, "share", None, None, peer))
    image = phantom("ct", np.random.default_rng(0))
    begun = time.process_time()
    for _ in range(3):
        has_text(image)
    return [*rows, Row("seconds", (time.process_time() - begun) / 3, "s", None, None, "one image")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How much burned-in text the check of pixels finds.")
    parser.add_argument("--images", type=int, default=30, help="of each kind, for each row")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = measure(options.images)
    print_rows(rows)
    if options.json:
        write_rows(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
