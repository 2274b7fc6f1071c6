"""Simulated sites whose images look unlike: by hand, deterministic, and told of."""

from __future__ import annotations

import json

import numpy as np
import pytest

import medfed.api
from medfed.core.errors import DataError, TaskError
from medfed.data.acquisition import Acquisition, Reacquired, acquisitions
from medfed.data.images.cache import PLACE
from medfed.spec.task import Partition

RAMP = np.linspace(-100, 300, 401).reshape(1, 1, 401)


class Given:
    """A picture in memory."""

    def __init__(self, array, name="given"):
        self.array, self.name = array, name

    def digest(self):
        return self.array.tobytes()[:32]

    def pixels(self):
        return self.array


def draw():
    return np.random.default_rng(0)


def partition(**more):
    return Partition(data="a.npz", sites=4, by="acquisition", **more)


def test_gamma_and_window_by_hand():
    curved = Acquisition(gamma=2.0, low=0.25, high=0.75).applied(RAMP, draw())[0, 0]
    # a quarter of the way is 0, the middle ½ squared = ¼, three quarters and beyond 1, of a range of -100 … 300
    assert curved[[0, 100, 200, 300, 400]] == pytest.approx([-100, -100, 0, 300, 300])


def test_gain_and_offset_by_hand():
    seen = Acquisition(gain=0.5, offset=0.1).applied(RAMP, draw())[0, 0]
    assert seen[[0, 200, 400]] == pytest.approx([-60, 40, 140])


def test_noise_has_the_standard_deviation_that_it_says_and_no_mean():
    flat = np.full((1, 400, 400), 50.0)
    flat[0, 0, :2] = 0, 100
    noise = Acquisition(noise=0.1).applied(flat, draw())[0, 1:] - 50
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert abs(noise.mean()) < 5 * 10 / 400
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02


def test_blur_keeps_the_mean_and_widens_a_line_by_its_standard_deviation():
    line = np.zeros((1, 100, 100))
    line[0, :, 50] = 1.0
    profile = Acquisition(blur=0.04).applied(line, draw())[0].mean(axis=0)
    assert profile.sum() == pytest.approx(1.0, rel=1e-5)
    assert np.sqrt((profile * (np.arange(100) - 50) ** 2).sum()) == pytest.approx(4.0, rel=0.02)


def test_nothing_is_changed_without_an_acquisition_nor_where_all_numbers_are_alike():
    np.testing.assert_allclose(Acquisition().applied(RAMP, draw()), RAMP, rtol=1e-6, atol=1e-4)
    flat = np.full((1, 3, 3), 7.0)
    assert (Acquisition(gamma=2, noise=0.5, gain=2).applied(flat, draw()) == 7).all()


def test_each_site_has_its_own_by_the_seed_alone():
    first = acquisitions(partition(), 3)
    assert first == acquisitions(partition(), 3) != acquisitions(partition(), 4)
    for name in ("gamma", "low", "high", "noise", "blur", "gain", "offset"):
        assert len({getattr(each, name) for each in first}) == 4
    gammas = sorted(np.log2([each.gamma for each in first]))
    assert all(low <= gamma <= low + 0.5 for gamma, low in zip(gammas, (-1, -0.5, 0, 0.5), strict=True))


def test_what_does_not_vary_stays_and_strength_scales():
    assert all(
        (each.noise, each.blur, each.gain) == (0, 0, 1) for each in acquisitions(partition(vary=["contrast"]), 0)
    )
    assert all(each.gamma == 1 and each.noise > 0 for each in acquisitions(partition(vary=["noise"]), 0))
    weak, strong = (acquisitions(partition(vary=["noise"], strength=s), 0) for s in (0.5, 2.0))
    assert [4 * each.noise for each in weak] == pytest.approx([each.noise for each in strong])


def test_a_picture_reads_the_same_at_every_time_and_keeps_its_own_place_in_the_cache():
    picture = Given(np.random.default_rng(1).random((1, 9, 9)))
    one, other = (Reacquired(picture, Acquisition(noise=sd), 0) for sd in (0.1, 0.2))
    np.testing.assert_array_equal(one.pixels(), one.pixels())
    assert len({picture.digest(), one.digest(), other.digest(), Reacquired(picture, one.acquisition, 1).digest()}) == 4
    assert one.name == "given"


def archive(path):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    np.savez(path, images=rng.integers(0, 255, (80, 8, 8)).astype(np.uint8), labels=labels, ids=np.arange(80) // 2)


def task(**more):
    return {
        "task_type": "classification",
        "model": {"name": "cnn", "input_size": [1, 8, 8]},
        "federation": {"strategy": "fedavg", "rounds": 1},
        "partition": {"data": "a.npz", "sites": 4, **more},
        "data": {"connector": "npz", "label": {"column": "label", "classes": [0, 1]}, "id": "id"},
    }


def test_patients_and_labels_are_those_of_an_even_partition_and_images_are_not(tmp_path, monkeypatch):
    from medfed.engine.hospitals import load_hospitals
    from medfed.spec.loading import task_of

    archive(tmp_path / "a.npz")
    monkeypatch.setenv(PLACE, str(tmp_path / "cache"))

    def tables(**more):
        found = load_hospitals(task_of(task(**more)), tmp_path)
        return {site: found.rows.get(site).table for site in found.sites}

    even, unlike, again = tables(by="even"), tables(by="acquisition"), tables(by="acquisition")
    for site in even:
        assert unlike[site].ids.tolist() == even[site].ids.tolist()
        assert unlike[site].targets.tolist() == even[site].targets.tolist()
        assert unlike[site].split.tolist() == even[site].split.tolist()
        assert not np.allclose(unlike[site].columns["image"], even[site].columns["image"])
        np.testing.assert_array_equal(unlike[site].columns["image"], again[site].columns["image"])
    assert len({table.findings.simulated for table in unlike.values()}) == 4


def test_the_data_sheet_and_the_report_say_which(tmp_path):
    archive(tmp_path / "a.npz")
    medfed.run(task(by="acquisition", vary=["noise"]), data=tmp_path, output=tmp_path / "run")
    sheets = json.loads((tmp_path / "run" / "sheets.json").read_text())
    said = [next(w for w in sheet["warnings"] if "noise 0." in w) for sheet in sheets.values()]
    assert len(set(said)) == 4
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(sentence in page for sentence in said)


def test_a_table_is_refused(tmp_path):
    rows = "\n".join(f"p{n},{n % 7},{n % 2}" for n in range(80))
    (tmp_path / "a.csv").write_text(f"id,x,label\n{rows}\n")
    on_table = task(data="a.csv", by="acquisition") | {"model": "logistic", "data": {"id": "id", "label": "label"}}
    with pytest.raises(DataError, match="these rows are a table"):
        medfed.build(on_table, data=tmp_path)


def test_strength_without_an_acquisition_is_refused(tmp_path):
    with pytest.raises(TaskError, match="leaves images as they are"):
        medfed.build(task(by="label", strength=0.5), data=tmp_path)


@pytest.mark.parametrize("by", ["even", "label", "acquisition"])
def test_a_resolved_task_is_a_task(tmp_path, by):
    archive(tmp_path / "a.npz")
    medfed.run(task(by=by, alpha=1000, minimum=5), data=tmp_path, output=tmp_path / "run")
    assert len(medfed.predict(tmp_path / "run", tmp_path / "a.npz")) == 80
