"""The page for a site's own readers: what it shows, what it names, and who can read it."""

from __future__ import annotations

import base64
import csv
import io
import re

import numpy as np
import pytest
from explained_sites import site
from matplotlib.image import imread

from medfed.report.explanation_page import PAGE, ROWS, write_explanation
from medfed.report.pictures import grey, png, signed, slice_of, with_heat


def pixels(address: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))[..., :3]


@pytest.mark.parametrize("image", [True, False])
def test_a_page_names_no_patient_and_only_its_owner_reads_it(tmp_path, image):
    page = write_explanation(site(image=image), tmp_path / "explained" / "north")
    html = page.read_text()
    assert "PATIENT" not in html and "ward/" not in html and "North &lt;b&gt;" in html
    assert f"These are {'images' if image else 'values'} of patients." in html
    for name in (PAGE, ROWS):
        assert (page.parent / name).stat().st_mode & 0o777 == 0o600
    assert page.parent.stat().st_mode & 0o077 == 0
    rows = list(csv.reader(io.StringIO((page.parent / ROWS).read_text())))
    noun = "image" if image else "row"
    assert rows[0] == ["name", "patient", "source"]
    assert rows[1] == [f"{noun} 1", "'=PATIENT-0", "ward/0.png"]


def test_each_image_has_three_pictures_and_of_a_volume_they_say_which_slice(tmp_path):
    html = write_explanation(site(image=True), tmp_path).read_text()
    assert len(re.findall(r'class="picture" src="data:image/png', html)) == 9
    assert re.search(r"<figcaption>Image, slice \d of 6</figcaption>", html)


def test_a_tables_rows_say_what_moved_them(tmp_path):
    html = write_explanation(site(image=False), tmp_path).read_text()
    assert "age = 61 (−0.42); chol = 240.5 (+0.31)" in html
    assert html.count("<svg") >= 1 and "Mean |attribution| by feature" in html


def test_heat_covers_what_it_points_at_and_nothing_else():
    image = np.full((1, 8, 8), 0.5, np.float32)
    image[0, 0, 0] = 1.0
    heat = np.zeros((8, 8), np.float32)
    heat[2:4, 5:7] = 1
    changed = np.abs(with_heat(image, heat) - grey(image)).sum(-1) > 1e-6
    assert (changed == (heat > 0)).all()
    assert (with_heat(image, np.zeros((8, 8), np.float32)) == grey(image)).all()


def test_what_speaks_for_a_class_is_red_and_what_speaks_against_it_blue():
    attributions = np.zeros((2, 4, 4), np.float32)
    attributions[:, 0, 0], attributions[:, 3, 3] = 1, -1
    shown = signed(attributions)
    red, _, blue = shown[0, 0]
    assert red > 2 * blue and shown[3, 3][2] > 2 * shown[3, 3][0]
    assert np.ptp(shown[1, 1]) < 0.02


def test_of_a_volume_the_slice_with_most_in_it_is_shown_else_the_middle_one():
    volume, cam = np.zeros((1, 9, 4, 4), np.float32), np.zeros((9, 4, 4), np.float32)
    cam[7, 1, 1] = 1
    assert slice_of(volume, cam, None) == 7
    assert slice_of(volume, None, -cam[None]) == 7
    assert slice_of(volume) == 4
    assert slice_of(volume[:, 0]) is None


def test_a_small_image_is_enlarged_pixel_by_pixel():
    image = grey(np.arange(12, dtype=np.float32).reshape(1, 3, 4))
    drawn = pixels(png(image))
    assert drawn.shape == (192, 256, 3)
    np.testing.assert_allclose(drawn[::64, ::64], image, atol=1 / 255)
