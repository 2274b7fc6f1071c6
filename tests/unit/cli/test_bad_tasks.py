"""Tasks, folders and options as people mistype them: exit 2, one error, and a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runs import TASK, Workplace, changed, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfed.cli.main import main

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    built = Workplace(tmp_path, capsys)
    built.write()
    return built


def assert_one_error(place: Workplace, ended: Any, *fragments: str) -> None:
    assert ended.status == 2, ended.told
    assert "Traceback" not in ended.told
    assert ended.err.startswith("error: ")
    for fragment in fragments:
        assert fragment in ended.err
    assert not (place.folder / "run").exists()


WRONG_TASKS = {
    "unknown key": (
        changed("federation.epoch", 5),
        ("task.yaml:", "federation.epoch", "did you mean `epochs`"),
    ),
    "unknown section": (changed("federatoin", {}), ("federatoin", "did you mean `federation`")),
    "unknown strategy": (changed("federation.strategy", "fedavgg"), ("'fedavgg'", "did you mean 'fedavg'")),
    "unknown option": (
        changed("federation.strategy", {"name": "fedprox", "nu": 1}),
        ("no option 'nu'", "options of fedprox: mu"),
    ),
    "unknown model": (changed("model", "logistics"), ("'logistics'", "did you mean 'logistic'")),
    "missing section": (changed("model", None), ("model",)),
    "text for a number": (changed("federation.lr", "fast"), ("federation.lr",)),
    "a negative rate": (changed("federation.lr", -1.0), ("federation.lr",)),
    "splits above the whole": (
        changed("data.split", {"train": 0.9, "validation": 0.5}),
        ("task.yaml:", "train, validation and test sum to 1.6"),
    ),
    "no label": (changed("data.label", None), ("label",)),
    "a path upwards": (changed("sites.North", "../north.csv"), ("task.yaml:", "leads out of the data folder")),
    "an absolute path": (changed("sites.North", "/etc/passwd"), ("leads out of the data folder",)),
    "a site called as the coordinator": (
        changed("sites", {"coordinator": "north.csv", "South": "south.csv"}),
        ("'coordinator'", "rename it"),
    ),
    "a site with a path for a name": (
        changed("sites", {"../x": "north.csv"}),
        ("task.yaml:", "'../x' cannot be a name"),
    ),
}


@pytest.mark.parametrize("case", WRONG_TASKS)
def test_a_wrong_task_is_one_error_with_its_place(place: Workplace, case: str) -> None:
    task, fragments = WRONG_TASKS[case]
    place.write_task(task)
    assert_one_error(place, place.run(), *fragments)


WRONG_FILES = {
    "empty": (b"", ()),
    "a list": (b"- 1\n- 2\n", ()),
    "not YAML": (b"task_type: [classification\nmodel: }", ("task.yaml:",)),
    "a tab": (b"task_type: classification\nfederation:\n\tstrategy: fedavg\n", ("task.yaml:3",)),
    "a bomb": (BOMB.encode(), ("task.yaml:",)),
    "a custom tag": (b"!!python/object/apply:os.system ['true']\n", ("task.yaml",)),
    "a tagged value": (b"task_type: !!python/name:os.system ''\n", ("task.yaml:1",)),
    "not UTF-8": (b"name: \xff\xfe\xfa\n", ("task.yaml",)),
    "binary": (bytes(range(256)), ("task.yaml",)),
    "a key twice": (b"name: a\nname: b\n", ("task.yaml:2",)),
    "deep": (b"a: " + b"[" * 500 + b"]" * 500, ("task.yaml:",)),
}


@pytest.mark.parametrize("case", WRONG_FILES)
@pytest.mark.parametrize("command", ["run", "check", "compare"])
def test_a_file_that_is_no_task(place: Workplace, case: str, command: str) -> None:
    content, fragments = WRONG_FILES[case]
    (place.folder / "task.yaml").write_bytes(content)
    ended = place.medfed(command, place.folder / "task.yaml")
    assert_one_error(place, ended, *fragments)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=120) | st.text("{}[]:,&*!#|>-'\"\n\t ab1", max_size=120).map(str.encode))
def test_any_bytes_in_place_of_a_task_are_explained(place: Workplace, content: bytes) -> None:
    (place.folder / "task.yaml").write_bytes(content)
    assert_one_error(place, place.medfed("check", place.folder / "task.yaml"))


def test_a_task_that_is_not_there_or_is_a_folder(place: Workplace) -> None:
    assert_one_error(place, place.medfed("run", place.folder / "tsak.yaml"), "there is no such file")
    assert_one_error(place, place.medfed("run", place.folder), "this is a folder")


@pytest.mark.parametrize(
    ("setting", "fragment"),
    [
        ("federation.learning_rate=1", "learning_rate"),
        ("federation.lr", "="),
        ("=1", ""),
        ("federation.lr=[", ""),
        ("federation.strategy.name.more=1", ""),
        ("sites.North=../x", "leads out of the data folder"),
    ],
)
def test_a_wrong_setting_is_an_error(place: Workplace, setting: str, fragment: str) -> None:
    assert_one_error(place, place.run("--set", setting), fragment)


def test_a_data_folder_that_is_not_there(place: Workplace) -> None:
    assert_one_error(place, place.run("--data", str(place.folder / "nowhere")), "no such data folder", "--data")


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_an_output_that_cannot_be_made(place: Workplace, below: str) -> None:
    (place.folder / "file").write_text("")
    ended = place.medfed("run", place.folder / "task.yaml", "--output", place.folder / below)
    assert_one_error(place, ended)
    ended = place.medfed("compare", place.folder / "task.yaml", "--output", place.folder / below)
    assert_one_error(place, ended)


def test_nothing_to_run_and_too_much(place: Workplace) -> None:
    assert_one_error(place, place.medfed("run"), "there is nothing to run")
    both = place.medfed("run", place.folder / "task.yaml", "--resume", place.folder)
    assert_one_error(place, both, "give --resume DIR alone")
    assert_one_error(place, place.medfed("run", "--resume", place.folder / "nowhere"), "no run in this folder")


def test_resuming_a_finished_run_says_where_its_report_is_and_writes_it_again(place: Workplace) -> None:
    assert place.run("--quiet").status == 0
    report = place.folder / "run" / "report.html"
    report.unlink()
    ended = place.medfed("run", "--resume", place.folder / "run")
    assert ended.status == 2
    assert "this run is finished" in ended.err
    assert str(report) in ended.err
    assert report.is_file()


def test_an_option_that_does_not_exist(place: Workplace) -> None:
    ended = place.medfed("run", place.folder / "task.yaml", "--outptu", "x")
    assert ended.status == 2
    assert "--outptu" in ended.err
    assert place.medfed("rnu").status == 2


def test_predicting_needs_a_finished_run_and_a_table(place: Workplace) -> None:
    assert_one_error(place, place.medfed("predict", place.folder, place.folder / "north.csv"))
    assert place.run("--quiet").status == 0
    run = place.folder / "run"
    missing = place.medfed("predict", run, place.folder / "nowhere.csv")
    assert (missing.status, "does not exist" in missing.err) == (2, True)
    (place.folder / "empty.csv").write_text("")
    assert place.medfed("predict", run, place.folder / "empty.csv").status == 2
    nowhere = place.medfed("predict", run, place.folder / "north.csv", "--output", place.folder / "no" / "scores.csv")
    assert nowhere.status == 2, nowhere.told
    assert "scores.csv" in nowhere.err


def test_a_damaged_model_is_said_to_be(place: Workplace) -> None:
    assert place.run("--quiet").status == 0
    run = place.folder / "run"
    for name in ("model.safetensors", "encoding.bin"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2])
        ended = place.medfed("predict", run, place.folder / "north.csv")
        assert ended.status == 2, ended.told
        assert "Traceback" not in ended.told
        (run / name).write_bytes(whole)
    assert place.medfed("predict", run, place.folder / "north.csv").status == 0


def test_a_policy_that_refuses_ends_with_status_3_and_names_site_and_key(place: Workplace) -> None:
    task = changed("sites.North", {"data": "north.csv", "policy": "policy.yaml"})
    place.write_task(task)
    (place.folder / "policy.yaml").write_text("tasks: '*'\n")
    ended = place.run()
    assert ended.status == 3, ended.told
    assert "North: " in ended.err
    assert "(task_types)" in ended.err


def test_too_few_patients_end_with_status_3_and_no_number_of_them(place: Workplace) -> None:
    place.write_task(changed("sites.North", {"data": "north.csv", "policy": "policy.yaml"}))
    everything = "".join(f"{key}: '*'\n" for key in ("tasks", "task_types", "algorithms", "steps", "releases"))
    (place.folder / "policy.yaml").write_text(everything + "minimum_patients: 1000\n")
    ended = place.run()
    assert ended.status == 3
    assert "minimum_patients (1000)" in ended.err
    assert "24" not in ended.err


@pytest.mark.parametrize("content", ["", "{", '{"local": 1}', '{"local": {"role": "guest", "party_id": "x"}}', "[]"])
def test_a_wrong_party_file(place: Workplace, content: str) -> None:
    (place.folder / "party.json").write_text(content)
    ended = place.medfed(
        "train",
        *("--config", place.folder / "task.yaml"),
        *("--data", place.folder),
        *("--output", place.folder / "run"),
        *("--party_config", place.folder / "party.json"),
    )
    assert_one_error(place, ended, "party.json")


def test_data_that_are_not_known_or_not_there(place: Workplace) -> None:
    ended = place.medfed("data", "fetch", "hart-disease")
    assert_one_error(place, ended, "hart-disease", "heart-disease")
    ended = place.medfed("data", "fetch", "heart-disease", "--from", place.folder, "--output", place.folder / "heart")
    assert_one_error(place, ended, "processed.cleveland.data")


def test_check_prints_the_resolved_task_and_reads_its_own_output(place: Workplace) -> None:
    first = place.medfed("check", place.folder / "task.yaml")
    assert first.status == 0
    (place.folder / "again.yaml").write_text(first.out)
    second = place.medfed("check", place.folder / "again.yaml", "--json")
    told = json.loads(second.out)
    assert told["digest"] in first.out
    assert told["name"] == TASK["name"]


def test_check_and_run_warn_what_whole_sites_cost_with_the_figure(place: Workplace) -> None:
    setting = "--set", "privacy={site: {noise_multiplier: 3.0}}", "--set", "federation.epochs=10"
    told = place.medfed("check", place.folder / "task.yaml", *setting)
    assert told.status == 0 and "warning: privacy.site protects a whole site with epsilon 4.65" in told.err
    assert "usually more than a model bears" in told.err and "trusted" in told.err
    ran = place.run(*setting)
    assert "epsilon 4.65" in ran.out and "times the norm of the largest mean update" in ran.out
    refused = place.medfed("check", place.folder / "task.yaml", *setting, "--set", "federation.strategy=scaffold")
    assert refused.status == 2 and "share the noise" in refused.err and "remedy" in refused.err


def test_json_errors_are_json(place: Workplace) -> None:
    (place.folder / "north.csv").write_text(table().replace("age", "x"))
    told = json.loads(place.run("--json").out.splitlines()[-1])
    assert told["error"] == "data"


def test_check_tells_files_that_are_not_here_and_bad_policies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(
        "task_type: classification\nmodel: logistic\nfederation: {strategy: fedavg}\n"
        "sites:\n  A: nofile.csv\n  B: {data: nofile.csv, policy: policy.yaml}\n"
    )
    (tmp_path / "policy.yaml").write_text("releases: [sum]\n")
    with pytest.raises(SystemExit) as ended:
        main(["check", str(task)])
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert told.err.count("there is no 'nofile.csv'") == 2
    (tmp_path / "policy.yaml").write_text("tsks: [abc]\n")
    with pytest.raises(SystemExit) as ended:
        main(["check", str(task)])
    assert ended.value.code == 2
    assert "did you mean `tasks`" in capsys.readouterr().err
