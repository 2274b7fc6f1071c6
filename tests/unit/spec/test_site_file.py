from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import TaskError
from medfed.spec.document import read_value
from medfed.spec.policy import Policy
from medfed.spec.site import Dataset, SiteFile, dataset_path, default_site_file, load_site

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "site-file.md"
DIGEST = "ab" * 32
EXAMPLE = f"""\
contact: it@north.example
datasets:
  heart:
    connector: {{name: csv, delimiter: ";"}}
    path: data/heart.csv
    id: patient
    label: diagnosis
    time_zone: Europe/Berlin
policy:
  steps: "*"
  quiet_hours:
    - {{from: 22:00, to: 06:00}}
  cpus: 2
  memory: 1536 MiB
  epsilon: 3
approvals: {{auto_approve: [{DIGEST}]}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> TaskError:
    with pytest.raises(TaskError) as caught:
        load_site(written(folder, text))
    return caught.value


def test_a_site(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, EXAMPLE))
    heart = site.datasets["heart"]
    assert (heart.path, heart.id, heart.label, heart.time_zone) == (
        "data/heart.csv",
        "patient",
        "diagnosis",
        "Europe/Berlin",
    )
    assert (heart.connector.name, heart.connector.options) == ("csv", {"delimiter": ";"})
    assert (site.policy.cpus, site.policy.memory, site.policy.epsilon) == (2, 1536 * 1024 * 1024, 3.0)
    (quiet,) = site.policy.quiet_hours
    assert (quiet.begin, quiet.end, quiet.time_zone, len(quiet.days)) == ("22:00", "06:00", "UTC", 7)
    assert (site.approvals.required, site.approvals.auto_approve) == (True, (DIGEST,))


def test_a_contact_alone_allows_nothing(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, "contact: x\n"))
    assert site == SiteFile(contact="x", policy=Policy())
    assert site.datasets == {}
    assert (site.policy.tasks, site.policy.steps, site.policy.releases, site.approvals.auto_approve) == ((),) * 4
    assert (site.policy.cpus, site.policy.memory, site.policy.epsilon, site.policy.quiet_hours) == (None,) * 3 + ((),)


def test_the_example_of_the_docs_loads(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert load_site(written(tmp_path, example)).policy.memory == 8 * 2**30


BAD = {
    "no contact": ("contact: it@north.example\n", "", 1, "`contact`"),
    "contact a number": ("it@north.example", "112", 1, "quotes"),
    "blank contact": ("it@north.example", '" "', 1, "`contact`"),
    "unknown key": ("contact:", "keys: x\ncontact:", 1, "`keys`"),
    "no path": ("    path: data/heart.csv\n", "", 3, "datasets.heart.path"),
    "empty path": ("data/heart.csv", '""', 5, "datasets.heart.path"),
    "nul in a path": ("data/heart.csv", r'"a\0b"', 5, "datasets.heart.path"),
    "dataset a path": ("datasets:", "datasets:\n  lung: lung.csv", 3, "datasets.lung"),
    "dataset's name": ("datasets:", "datasets:\n  ../lung: {path: x}", 3, "../lung"),
    "misspelt": ("    label:", "    lable:", 7, "lable"),
    "zone": ("Europe/Berlin", "Europe/Berlln", 8, "time_zone"),
    "zone's folder": ("Europe/Berlin", "Europe", 8, "time_zone"),
    "zone of this machine": ("Europe/Berlin", "localtime", 8, "time_zone"),
    "zone a path": ("Europe/Berlin", "../Europe/Berlin", 8, "time_zone"),
    "zone an offset": ("Europe/Berlin", "+01:00", 8, "time_zone"),
    "hour": ("22:00", "9:00", 12, "quiet_hours[0].from"),
    "hour 24": ("22:00", "24:00", 12, "quiet_hours[0].from"),
    "minute 60": ("06:00", "06:60", 12, "quiet_hours[0].to"),
    "after 24": ("06:00", "24:01", 12, "quiet_hours[0].to"),
    "other digits": ("06:00", "0٦:00", 12, "quiet_hours[0].to"),
    "no hours": ("06:00", "22:00", 12, "same time"),
    "no end": (", to: 06:00", "", 12, "quiet_hours[0].to"),
    "begin by another name": ("from:", "begin:", 12, "begin"),
    "no days": ("06:00", "06:00, days: []", 12, "days"),
    "day": ("06:00", "06:00, days: [monday]", 12, "days"),
    "quiet zone": ("06:00", "06:00, time_zone: CEST", 12, "time_zone"),
    "cpus 0": ("cpus: 2", "cpus: 0", 13, "at least 1"),
    "part of a processor": ("cpus: 2", "cpus: 1.5", 13, "whole number"),
    "memory without a unit": ("1536 MiB", "1536", 14, "memory"),
    "memory in GB": ("1536 MiB", "2 GB", 14, "memory"),
    "no memory": ("1536 MiB", "0 MiB", 14, "memory"),
    "fraction": ("1536 MiB", "1.5 GiB", 14, "memory"),
    "negative": ("1536 MiB", "-1 GiB", 14, "memory"),
    "epsilon below 0": ("epsilon: 3", "epsilon: -0.1", 15, "at least 0"),
    "no number": ("epsilon: 3", "epsilon: .nan", 15, "epsilon"),
    "no end of it": ("epsilon: 3", "epsilon: .inf", 15, "epsilon"),
    "no approvals": ("{auto_approve", "{required: false, auto_approve", 16, "without approval"),
    "approve all": (f"[{DIGEST}]", "'*'", 16, "auto_approve"),
    "short digest": (DIGEST, DIGEST[1:], 16, "auto_approve"),
}


@pytest.mark.parametrize(("old", "new", "line", "cause"), BAD.values(), ids=BAD)
def test_a_bad_site_file_is_refused_at_its_line(tmp_path: Path, old: str, new: str, line: int, cause: str) -> None:
    assert old in EXAMPLE
    error = refusal(tmp_path, EXAMPLE.replace(old, new, 1))
    assert error.where == f"{tmp_path / 'site.yaml'}:{line}"
    assert cause in error.cause
    assert error.remedy


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = EXAMPLE.replace("Europe/Berlin", "Berlin").replace("22:00", "x").replace("cpus: 2", "cpu: 2")
    error = refusal(tmp_path, text)
    assert error.cause.startswith("3 things are wrong")
    assert [int(line) for line in re.findall(r"site\.yaml:(\d+):", error.cause)] == [8, 12, 13]


def test_a_time_zone_nearly_right_is_guessed(tmp_path: Path) -> None:
    assert "`Europe/Berlin`" in refusal(tmp_path, EXAMPLE.replace("Europe/Berlin", "Europe/Berln")).remedy


@given(st.integers(1, 999_999), st.sampled_from([("MiB", 20), ("GiB", 30), ("TiB", 40)]), st.sampled_from(["", " "]))
def test_memory_is_bytes_and_is_written_as_it_may_be_read(size: int, unit: tuple[str, int], space: str) -> None:
    name, power = unit
    policy = Policy.model_validate({"memory": f"{size}{space}{name}"})
    assert policy.memory == size * 2**power
    assert Policy.model_validate_json(policy.model_dump_json(by_alias=True)) == policy


# ------------------------------------------------------------------------------------------------- paths of datasets


def test_a_path_below_the_folder_and_a_whole_path(tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    for path, found in (
        ("data/heart.csv", site / "data" / "heart.csv"),
        ("data/../heart.csv", site / "heart.csv"),
        ("../site/heart.csv", site / "heart.csv"),
        (".", site),
        (str(elsewhere / "a.csv"), elsewhere / "a.csv"),
    ):
        assert dataset_path(site, "heart", Dataset(path=path)) == found


@pytest.mark.parametrize("path", ["..", "../other/heart.csv", "data/../../heart.csv", "../site2/heart.csv"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(TaskError) as caught:
        dataset_path(tmp_path / "site", "heart", Dataset(path=path))
    assert "'heart'" in caught.value.cause
    assert caught.value.remedy


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "data").mkdir(parents=True)
    (site / "out").symlink_to(tmp_path)
    (site / "in").symlink_to(site / "data")
    assert dataset_path(site, "heart", Dataset(path="in/heart.csv")) == site / "data" / "heart.csv"
    with pytest.raises(TaskError, match="'heart' leads out"):
        dataset_path(site, "heart", Dataset(path="out/heart.csv"))


def test_a_site_folder_that_is_a_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert dataset_path(tmp_path / "link", "heart", Dataset(path="a.csv")) == tmp_path / "real" / "a.csv"


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(TaskError, match=r"'heart' cannot be followed"):
        dataset_path(tmp_path, "heart", Dataset(path="a/heart.csv"))


# ------------------------------------------------------------------------------------------------- the file init writes


def test_the_default_allows_nothing(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, default_site_file("it@north.example")))
    assert site == SiteFile(contact="it@north.example")


def test_its_examples_load_when_they_are_made_use_of(tmp_path: Path) -> None:
    text = re.sub(r"^( *)# ", r"\1", default_site_file("x"), flags=re.MULTILINE)
    text = text.replace("  algorithms: []\n", "")  # the example stands below
    site = load_site(written(tmp_path, text))
    assert site.datasets["default"].time_zone == "Europe/Berlin"
    policy = site.policy
    assert (policy.algorithms, policy.limits.rounds, len(policy.quiet_hours)) == (("fedavg", "fedprox"), 100, 1)
    assert (policy.cpus, policy.memory, policy.epsilon) == (4, 8 * 2**30, 3.0)


def test_it_shows_every_key_a_steward_decides_on() -> None:
    text = default_site_file("x")
    keys = {*SiteFile.model_fields, *Dataset.model_fields, *Policy.model_fields}
    keys -= {"tasks", "connector"}  # approvals take the first one's place, and there is one connector
    assert keys <= set(re.findall(r"^[ #]*(\w+)(?::|  )", text, re.MULTILINE))
    assert all(len(line) <= 120 for line in text.splitlines())


@given(st.text(min_size=1, max_size=80))
def test_any_contact_is_kept_or_refused(contact: str) -> None:
    if contact.isprintable() and contact.strip():
        assert read_value(default_site_file(contact), "site.yaml")["contact"] == contact
    else:
        with pytest.raises(TaskError, match="contact"):
            default_site_file(contact)


def test_a_contact_that_nobody_gave_is_left_to_be_filled_in(tmp_path: Path) -> None:
    assert load_site(written(tmp_path, default_site_file(""))).contact == "to be filled in"
