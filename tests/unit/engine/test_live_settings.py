from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfed.core.errors import Refused, TaskError
from medfed.engine.deployed import settings as module
from medfed.engine.deployed.settings import LiveSettings
from medfed.spec.site import SiteFile, load_site


def text(contact: str = "it", rounds: int = 1) -> str:
    return f"contact: {contact}\npolicy:\n  limits: {{rounds: {rounds}}}\n"


def in_place(path: Path, content: str) -> None:
    path.write_text(content)


def by_rename(path: Path, content: str) -> None:
    beside = path.with_name("site.yaml~")
    beside.write_text(content)
    beside.replace(path)


def after_removal(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(content)


EDITS = [in_place, by_rename, after_removal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text())
    return path


def settle(path: Path, live: LiveSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time pass within which two edits may look like one."""
    monkeypatch.setattr(module, "_GRAIN", -1.0)
    live.current()
    monkeypatch.undo()


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_holds_at_the_next_look_and_is_told_once(path: Path, edit: Callable[[Path, str], None]) -> None:
    told: list[SiteFile] = []
    live = LiveSettings(path, told.append)
    assert (live.current().policy.limits.rounds, told) == (1, [])
    edit(path, text(rounds=2))
    assert [live.current().policy.limits.rounds for _ in range(3)] == [2, 2, 2]
    assert [each.policy.limits.rounds for each in told] == [2]
    assert told[0] is live.current()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("broken", ["contact: [\n", "contact: it\npolcy: {}\n", "", "contact: it\npolicy: {cpus: 0}\n"])
def test_a_broken_edit_changes_nothing_but_the_problem(
    path: Path, edit: Callable[[Path, str], None], broken: str
) -> None:
    told: list[SiteFile] = []
    live = LiveSettings(path, told.append)
    before = live.current()
    assert live.problem is None
    edit(path, broken)
    assert live.current() is before
    with pytest.raises(TaskError) as caught:
        LiveSettings(path)
    assert live.problem == str(caught.value)
    assert f"{path}:" in live.problem
    assert "remedy:" in live.problem
    edit(path, text(rounds=2))
    assert live.current().policy.limits.rounds == 2
    assert live.problem is None
    assert len(told) == 1


def test_a_file_that_vanishes_is_a_broken_edit(path: Path) -> None:
    live = LiveSettings(path)
    before = live.current()
    path.unlink()
    assert live.current() is before
    assert live.problem is not None and "no such file" in live.problem
    path.write_text(text())
    assert live.current() == before
    assert live.problem is None


def test_a_folder_in_its_place_is_one_too(path: Path) -> None:
    live = LiveSettings(path)
    path.unlink()
    path.mkdir()
    assert live.current().contact == "it"
    assert live.problem is not None and "folder" in live.problem


def test_mended_to_what_it_was_is_no_change(path: Path) -> None:
    told: list[SiteFile] = []
    live = LiveSettings(path, told.append)
    for content in ("contact: [", text(), "# a comment\n" + text()):
        by_rename(path, content)
        live.current()
    assert live.problem is None
    assert told == []


def test_what_does_not_load_at_first_is_told_at_once(path: Path) -> None:
    path.write_text("contact: it\npolcy: {}\n")
    with pytest.raises(TaskError, match="polcy"):
        LiveSettings(path)
    path.unlink()
    with pytest.raises(TaskError, match="no such file"):
        LiveSettings(path)


def test_a_file_that_does_not_change_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveSettings(path)
    settle(path, live, monkeypatch)
    path_before, path_content = path.stat(), path.read_bytes()
    reads: list[object] = []
    load = module.load_site
    monkeypatch.setattr(module, "load_site", lambda at: (reads.append(at), load(at))[1])
    for _ in range(100):
        live.current()
    assert reads == []
    assert (path.stat(), path.read_bytes()) == (path_before, path_content)
    os.utime(path)
    live.current()
    assert len(reads) == 1


def test_two_edits_of_one_size_at_one_time_are_both_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_mark", lambda at: (1,))  # a file system whose clock stands still
    live = LiveSettings(path)
    for rounds in (2, 3, 4):
        in_place(path, text(rounds=rounds))
        assert live.current().policy.limits.rounds == rounds


def test_a_file_that_could_not_be_read_for_once_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveSettings(path)
    by_rename(path, text(rounds=2))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_GRAIN", -1.0)
        patch.setattr(module, "load_site", lambda at: load_site(at / "beyond"))
        assert live.current().policy.limits.rounds == 1
        assert live.problem is not None
    assert live.current().policy.limits.rounds == 2
    assert live.problem is None


def test_a_link_that_is_turned_to_another_file_is_an_edit(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    live = LiveSettings(link)
    other = tmp_path / "other.yaml"
    other.write_text(text(rounds=7))
    link.unlink()
    link.symlink_to(other)
    assert live.current().policy.limits.rounds == 7


def test_a_change_that_cannot_be_recorded_does_not_hold_and_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int | None] = []

    def record(found: SiteFile) -> None:
        told.append(found.policy.limits.rounds)
        if len(told) < 3:
            raise Refused("the ledger cannot be written")

    live = LiveSettings(path, record)
    settle(path, live, monkeypatch)
    by_rename(path, text(rounds=2))
    monkeypatch.setattr(module, "_GRAIN", -1.0)
    for _ in range(2):
        with pytest.raises(Refused):
            live.current()
    assert [live.current().policy.limits.rounds for _ in range(3)] == [2, 2, 2]
    assert told == [2, 2, 2]


def test_who_is_told_may_look(path: Path) -> None:
    seen: list[int | None] = []
    live = LiveSettings(path, lambda _: seen.append(live.current().policy.limits.rounds))
    by_rename(path, text(rounds=2))
    live.current()
    assert seen == [2]


def test_threads_see_whole_settings_and_each_change_is_told_once(path: Path) -> None:
    told: list[int] = []
    live = LiveSettings(path, lambda found: told.append(found.policy.limits.rounds or 0))
    stop, wrong = threading.Event(), []

    def look() -> None:
        last = 0
        while not stop.is_set():
            found = live.current()
            rounds = found.policy.limits.rounds or 0
            if found.contact != f"c{rounds}" or rounds < last:
                wrong.append((found.contact, rounds, last))
            last = rounds

    by_rename(path, text("c1", 1))
    live.current()
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for rounds in range(2, 30):
        by_rename(path, text(f"c{rounds}", rounds))
        live.current()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert live.problem is None
    assert told == list(range(1, 30))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(EDITS), st.sampled_from([1, 2, 3, None])), max_size=12))
def test_what_holds_is_the_last_that_was_whole(tmp_path: Path, edits: list[tuple[Callable[..., None], int]]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text(rounds=1))
    told: list[int | None] = []
    live = LiveSettings(path, lambda found: told.append(found.policy.limits.rounds))
    holds, changes = 1, []
    for edit, rounds in edits:
        edit(path, "policy: {}\n" if rounds is None else text(rounds=rounds))
        if rounds not in (None, holds):
            holds = rounds
            changes.append(rounds)
        assert live.current().policy.limits.rounds == holds
        assert (live.problem is not None) == (rounds is None)
    assert told == changes
