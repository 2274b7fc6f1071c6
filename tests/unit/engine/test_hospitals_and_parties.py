from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from medfed.core.errors import DataError, TaskError, UserError
from medfed.engine.hospitals import load_hospitals
from medfed.engine.parties import party_sites
from medfed.spec.loading import TaskFile, load_task, task_of

ROWS = "id,age,label\n" + "".join(f"p{k},{30 + k},{k % 2}\n" for k in range(20))
POLICY = "minimum_patients: 3\nsteps: '*'\n"


def task(sites: dict[str, Any] | None = None) -> TaskFile:
    content: dict[str, Any] = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg"},
        "data": {"label": {"column": "label", "classes": [0, 1]}, "id": "id"},
    }
    return task_of(content | ({"sites": sites} if sites else {}))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "north").mkdir(parents=True)
    (folder / "north" / "rows.csv").write_text(ROWS)
    (folder / "south").mkdir()
    (folder / "south" / "patients.CSV").write_text(ROWS)
    (folder / "policy.yaml").write_text(POLICY)
    (tmp_path / "outside.csv").write_text(ROWS)
    return folder


def test_sites_as_the_task_names_them_with_their_policies(data: Path) -> None:
    hospitals = load_hospitals(task({"A": "north/rows.csv", "B": {"data": "south", "policy": "policy.yaml"}}), data)
    sites = hospitals.sites
    assert {name: hospitals.rows.get(name).table.rows() for name in sites} == {"A": 20, "B": 20}
    assert (sites["A"].policy_source, sites["A"].policy.tasks) == ("permissive", "*")
    assert (sites["B"].policy_source, sites["B"].policy.tasks) == ("policy.yaml", ())
    assert sites["B"].policy.minimum_patients == 3


def test_without_named_sites_every_folder_is_one(data: Path) -> None:
    (data / ".cache").mkdir()
    assert sorted(load_hospitals(task(), data).sites) == ["north", "south"]


def test_a_folder_whose_name_a_reader_takes_for_a_pattern_is_no_site(data: Path) -> None:
    (data / "north").rename(data / "a[b]")
    with pytest.raises(UserError, match=r"a path with \*, \? or \[ in it cannot be read"):
        load_hospitals(task(), data)


def test_no_sites_at_all(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="names no sites") as error:
        load_hospitals(task(), tmp_path)
    assert "one folder per site" in error.value.remedy


ESCAPES = ["../outside.csv", "north/../../outside.csv", "..", "link.csv", "linked/rows.csv", "{outside}"]


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize("key", ["data", "policy"])
def test_a_path_that_leads_out_of_the_data_folder_is_refused(data: Path, path: str, key: str) -> None:
    (data / "link.csv").symlink_to(data.parent / "outside.csv")
    (data.parent / "elsewhere").mkdir()
    (data.parent / "elsewhere" / "rows.csv").write_text(ROWS)
    (data / "linked").symlink_to(data.parent / "elsewhere")
    path = path.format(outside=data.parent / "outside.csv")
    entry = {"data": "north", key: path}
    with pytest.raises(TaskError, match="leads out of the data folder") as error:
        load_hospitals(task({"A": entry}), data)
    assert error.value.exit_status == 2


def test_an_absolute_path_is_refused_even_where_it_leads_inside(data: Path) -> None:
    with pytest.raises(TaskError, match="leads out of the data folder"):
        load_hospitals(task({"A": str(data / "north" / "rows.csv")}), data)


def test_a_link_that_stays_inside_is_followed(data: Path) -> None:
    (data / "link.csv").symlink_to(data / "north" / "rows.csv")
    assert load_hospitals(task({"A": "link.csv"}), data).rows.get("A").table.rows() == 20


def test_a_path_that_does_not_exist_names_those_that_do(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(
        "task_type: classification\nmodel: logistic\nfederation: fedavg\n".replace("fedavg", "{strategy: fedavg}")
        + "data: {label: {column: label, classes: [0, 1]}, id: id}\nsites:\n  A: north\n  B: nroth/rows.csv\n"
    )
    with pytest.raises(TaskError, match=r"there is no 'nroth/rows\.csv'") as error:
        load_hospitals(load_task(file), data)
    assert "north" in error.value.remedy
    assert error.value.where == f"{file}:7"


def test_rows_from_memory_as_a_frame_arrays_or_a_file(data: Path) -> None:
    frame = pandas.read_csv(data / "north" / "rows.csv")
    assert load_hospitals(task(), Path(), {"A": frame}).rows.get("A").table.rows() == 20
    assert load_hospitals(task(), Path(), {"A": data / "south"}).rows.get("A").table.rows() == 20
    arrays = (np.zeros((20, 2)), np.arange(20) % 2)
    assert load_hospitals(task(), Path(), {"A": lambda: arrays}).rows.get("A").table.rows() == 20
    assert load_hospitals(task(), Path(), {"A": arrays}).rows.get("A").table.rows() == 20


def test_an_unknown_connector_is_a_mistake_in_the_task(data: Path) -> None:
    with pytest.raises(TaskError, match="no connector is called 'csvv'") as error:
        wrong = task_of(
            {
                "task_type": "classification",
                "model": "logistic",
                "federation": {"strategy": "fedavg"},
                "data": {"label": "label", "connector": "csvv"},
            }
        )
        load_hospitals(wrong, data)
    assert "did you mean 'csv'" in error.value.remedy


def parties(folder: Path, remote: int = 10000) -> Path:
    file = folder / "party_config.json"
    content = {
        "local": {"role": "guest", "party_id": 9999},
        "remote": {"role": "host", "party_id": remote, "address": "127.0.0.1:9380"},
    }
    file.write_text(json.dumps(content))
    return file


def test_a_party_is_found_by_its_id_or_else_by_its_role(tmp_path: Path) -> None:
    for name in ("9999", "guest", "host"):
        (tmp_path / name).mkdir()
    found = party_sites(parties(tmp_path), tmp_path)
    assert found == {"guest-9999": tmp_path / "9999", "host-10000": tmp_path / "host"}


def test_a_party_without_a_folder_is_named_with_the_folder_it_needs(tmp_path: Path) -> None:
    (tmp_path / "9999").mkdir()
    with pytest.raises(DataError, match=r"no folder for the party 10000 \(host\)") as error:
        party_sites(parties(tmp_path), tmp_path)
    assert str(tmp_path / "10000") in error.value.remedy


def test_a_file_in_place_of_a_partys_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "9999").write_text(ROWS)
    (tmp_path / "host").mkdir()
    with pytest.raises(DataError, match="no folder for the party 9999"):
        party_sites(parties(tmp_path), tmp_path)
