from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from engine_parts import Diary, Mood, Ping, Pong, request
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from medfed.core.codec import encode
from medfed.core.errors import MemoryLost
from medfed.core.messages import Message
from medfed.core.wire import Reply, Request
from medfed.engine import memory as memory_module
from medfed.engine.memory import SiteMemory


def handle(memory: SiteMemory, asked: Request, kept: tuple[Message, ...] = (), released: int = 10) -> Reply:
    """What a node does with its memory, in its order."""
    stored = memory.stored_reply(asked)
    if stored is not None:
        return stored
    memory.settle(asked.settled)
    memory.at(asked.base)
    return memory.record(asked, Pong(f"answer {asked.message}"), kept, released)  # type: ignore[attr-defined]


def entries(memory: SiteMemory, base: int) -> dict[str, Any]:
    return {kind.__name__: message.entry for kind, message in memory.at(base).items()}  # type: ignore[attr-defined]


@pytest.fixture(params=["in the process", "in a folder"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> SiteMemory:
    return SiteMemory(None if request.param == "in the process" else tmp_path / "site")


def test_a_new_memory_is_empty(memory: SiteMemory) -> None:
    assert (memory.at(0), memory.requests, memory.released_bytes) == ({}, 0, 0)
    assert memory.stored_reply(request()) is None


def test_a_repeated_request_gets_the_stored_reply_and_counts_once(memory: SiteMemory) -> None:
    first = handle(memory, request(), (Diary(1),))
    stored = memory.stored_reply(request())
    assert stored is not None
    assert encode(stored) == encode(first)
    assert (memory.requests, memory.released_bytes) == (1, 10)


def test_settled_is_no_part_of_what_is_asked(memory: SiteMemory) -> None:
    handle(memory, request())
    assert memory.stored_reply(request(settled=0)) is not None


@pytest.mark.parametrize(
    "other",
    [request(base=1), request(call=1), request(round_=2), request(message=Ping(2)), request(step_name="other.step")],
    ids=["base", "call", "round", "message", "step"],
)
def test_a_request_that_differs_in_anything_is_another(memory: SiteMemory, other: Request) -> None:
    handle(memory, request())
    assert memory.stored_reply(other) is None


def test_each_request_makes_a_version_and_builds_on_the_one_before(memory: SiteMemory) -> None:
    assert handle(memory, request(), (Diary(1), Mood(7))).version == 1
    assert handle(memory, request(base=1, call=1), (Diary(2),)).version == 2
    assert entries(memory, 0) == {}
    assert entries(memory, 1) == {"Diary": 1, "Mood": 7}
    assert entries(memory, 2) == {"Diary": 2, "Mood": 7}


def test_a_base_older_than_the_newest_abandons_what_came_after_it(memory: SiteMemory) -> None:
    handle(memory, request(), (Diary(1),))
    handle(memory, request(base=1, call=1), (Diary(2),))
    branch = handle(memory, request(base=1, call=1, message=Ping(5)), (Diary(50),))
    assert branch.version == 3
    assert entries(memory, 3) == {"Diary": 50}
    assert entries(memory, 1) == {"Diary": 1}
    with pytest.raises(MemoryLost):
        memory.at(2)
    assert memory.stored_reply(request(base=1, call=1)) is None


def test_abandoned_work_still_counts_against_the_limits(memory: SiteMemory) -> None:
    handle(memory, request())
    handle(memory, request(message=Ping(2)))
    assert (memory.requests, memory.released_bytes) == (2, 20)


def test_settling_folds_and_forgets_the_replies(memory: SiteMemory) -> None:
    handle(memory, request(), (Diary(1), Mood(1)))
    handle(memory, request(base=1, call=1), (Diary(2),))
    handle(memory, request(base=2, call=2), (Diary(3),))
    memory.settle(2)
    assert entries(memory, 2) == {"Diary": 2, "Mood": 1}
    assert entries(memory, 3) == {"Diary": 3, "Mood": 1}
    assert memory.stored_reply(request()) is None
    assert memory.stored_reply(request(base=2, call=2)) is not None
    assert (memory.requests, memory.released_bytes) == (3, 30)
    for forgotten in (0, 1):
        with pytest.raises(MemoryLost, match=f"version {forgotten}"):
            memory.at(forgotten)


def test_an_unknown_base_is_refused(memory: SiteMemory) -> None:
    with pytest.raises(MemoryLost, match="version 4 of the site's memory"):
        memory.at(4)


@pytest.mark.parametrize("number", [-1, 0, 9])
def test_settling_a_version_that_is_not_there_changes_nothing(memory: SiteMemory, number: int) -> None:
    handle(memory, request(), (Diary(1),))
    memory.settle(number)
    assert entries(memory, 1) == {"Diary": 1}
    assert entries(memory, 0) == {}


def test_the_newest_message_of_a_type(memory: SiteMemory) -> None:
    handle(memory, request(), (Diary(1),))
    handle(memory, request(base=1, call=1))
    assert memory.newest(Diary).entry == 1
    with pytest.raises(MemoryLost, match="never kept a Mood"):
        memory.newest(Mood)


def test_the_folder_holds_one_file_a_version_and_forgets_with_the_memory(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path)
    for number in range(3):
        handle(memory, request(base=number, call=number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["version-1", "version-2", "version-3"]
    memory.settle(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settled", "version-3"]


def test_a_failed_write_leaves_the_memory_as_it_was(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path / "site")
    handle(memory, request(), (Diary(1),))
    shutil.move(tmp_path / "site", tmp_path / "elsewhere")
    with pytest.raises(Exception, match="cannot write"):
        memory.record(request(base=1, call=1), Pong("lost"), (Diary(2),), 10)
    shutil.move(tmp_path / "elsewhere", tmp_path / "site")
    assert memory.newest(Diary).entry == 1
    assert (memory.requests, memory.released_bytes) == (1, 10)
    assert memory.stored_reply(request(base=1, call=1)) is None


@dataclass
class ModelMemory:
    """The docstring's rules over plain lists: the settled state, and the chain of versions that still count."""

    settled: tuple[int, dict[str, int]] = (0, {})
    chain: list[tuple[int, bytes, str, dict[str, int]]] = field(default_factory=list)
    newest: int = 0
    requests: int = 0

    def at(self, number: int) -> dict[str, int] | None:
        states = {n: state for n, _, _, state in self.chain} | {self.settled[0]: self.settled[1]}
        return states.get(number)

    def stored(self, digest: bytes) -> str | None:
        return next((text for _, found, text, _ in self.chain if found == digest), None)

    def settle(self, number: int) -> None:
        for found, _, _, state in self.chain:
            if found == number:
                self.settled = (number, state)
        self.chain = [version for version in self.chain if version[0] > self.settled[0]]

    def record(self, base: int, digest: bytes, text: str, kept: dict[str, int]) -> int:
        state = self.at(base)
        assert state is not None
        self.newest += 1
        self.requests += 1
        self.chain = [version for version in self.chain if version[0] <= base]
        self.chain.append((self.newest, digest, text, state | kept))
        return self.newest


numbers = st.integers(0, 3)


class MemoryBesideModel(RuleBasedStateMachine):
    """Any coordinator, right or wrong, and a site that may be restarted between any two requests."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.memory = SiteMemory(Path(self.folder.name))
        self.model = ModelMemory()
        self.asked: list[Request] = []

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(back=numbers, behind=numbers, call=numbers, diary=st.none() | numbers, mood=st.none() | numbers)
    def ask(self, back: int, behind: int, call: int, diary: int | None, mood: int | None) -> None:
        base = self.model.newest - back
        self._handle(request(base=base, settled=base - behind, call=call), diary, mood)

    @rule(base=st.integers(-1, 12), settled=st.integers(-1, 12))
    def ask_wildly(self, base: int, settled: int) -> None:
        self._handle(request(base=base, settled=settled, message=Ping(99)), 9, None)

    @precondition(lambda self: bool(self.asked))
    @rule(which=st.integers(0, 50))
    def repeat(self, which: int) -> None:
        self._handle(self.asked[which % len(self.asked)], 5, 5)

    @rule()
    def restart(self) -> None:
        self.memory = SiteMemory(Path(self.folder.name))

    def _handle(self, asked: Request, diary: int | None, mood: int | None) -> None:
        digest = asked.digest().encode()
        kept = {"Diary": diary, "Mood": mood}
        messages = (*([Diary(diary)] if diary is not None else []), *([Mood(mood)] if mood is not None else []))
        expected = self.model.stored(digest)
        found = self.memory.stored_reply(asked)
        assert (found.body.text if isinstance(found and found.body, Pong) else None) == expected
        if found is not None:
            return
        self.asked.append(asked)
        self.memory.settle(asked.settled)
        self.model.settle(asked.settled)
        if self.model.at(asked.base) is None:
            with pytest.raises(MemoryLost):
                self.memory.at(asked.base)
            return
        text = f"answer {len(self.asked)}"
        reply = self.memory.record(asked, Pong(text), messages, 10)
        number = self.model.record(asked.base, digest, text, {k: v for k, v in kept.items() if v is not None})
        assert reply.version == number

    @invariant()
    def the_same_states_can_be_reached(self) -> None:
        if not hasattr(self, "memory"):
            return
        for number in range(-1, self.model.newest + 3):
            expected = self.model.at(number)
            if expected is None:
                with pytest.raises(MemoryLost):
                    self.memory.at(number)
            else:
                assert entries(self.memory, number) == expected
        assert self.memory.requests == self.model.requests
        assert self.memory.released_bytes == 10 * self.model.requests


TestMemoryBesideModel = MemoryBesideModel.TestCase
TestMemoryBesideModel.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_before_file_operation(number: int) -> Iterator[list[str]]:
    """End the process before its n-th change of a file, a write or a removal; yields the changes made."""
    made: list[str] = []
    write, unlink = memory_module.write_atomically, Path.unlink

    def count(name: str) -> None:
        if len(made) == number:
            raise Killed
        made.append(name)

    def counted_write(path: Path, *arguments: Any, **options: Any) -> None:
        count(f"write {path.name}")
        write(path, *arguments, **options)

    def counted_unlink(path: Path, missing_ok: bool = False) -> None:
        count(f"unlink {path.name}")
        unlink(path, missing_ok=missing_ok)

    with (
        mock.patch.object(memory_module, "write_atomically", counted_write),
        mock.patch.object(Path, "unlink", counted_unlink),
    ):
        yield made


SCRIPT = (
    (request(round_=0, call=0), (Diary(1), Mood(1))),
    (request(round_=0, call=1, base=1), (Diary(2),)),
    (request(round_=1, call=0, base=2, settled=2), (Diary(3),)),
    (request(round_=1, call=1, base=3, settled=2), (Mood(2),)),
    (request(round_=1, call=1, base=3, settled=2, message=Ping(9)), (Diary(4),)),
    (request(round_=2, call=0, base=5, settled=5), (Diary(5),)),
    (request(round_=2, call=1, base=6, settled=5), ()),
    (request(round_=3, call=0, base=7, settled=7), (Mood(3),)),
)
"""Preparation, a round, a lost reply whose work is abandoned, and rounds that settle the ones before."""


def state_after(folder: Path) -> tuple[dict[str, Any], int, int, list[str]]:
    memory = SiteMemory(folder)
    return entries(memory, 8), memory.requests, memory.released_bytes, sorted(p.name for p in folder.iterdir())


def all_file_operations() -> int:
    with tempfile.TemporaryDirectory() as folder, killed_before_file_operation(10_000) as made:
        memory = SiteMemory(Path(folder))
        for asked, kept in SCRIPT:
            handle(memory, asked, kept)
    return len(made)


@pytest.mark.parametrize("operation", range(all_file_operations()))
def test_a_kill_before_any_file_operation_loses_nothing(operation: int, tmp_path: Path) -> None:
    unbroken = SiteMemory(tmp_path / "unbroken")
    for asked, kept in SCRIPT:
        handle(unbroken, asked, kept)
    done = 0
    with pytest.raises(Killed), killed_before_file_operation(operation):
        memory = SiteMemory(tmp_path / "killed")
        for asked, kept in SCRIPT:
            handle(memory, asked, kept)
            done += 1
    memory = SiteMemory(tmp_path / "killed")
    for asked, kept in SCRIPT[done:]:
        handle(memory, asked, kept)
    assert state_after(tmp_path / "killed") == state_after(tmp_path / "unbroken")


def test_a_kill_between_folding_and_unlinking_is_one_of_those_moments(tmp_path: Path) -> None:
    with killed_before_file_operation(10_000) as made:
        memory = SiteMemory(tmp_path)
        for asked, kept in SCRIPT:
            handle(memory, asked, kept)
    first = made.index("write settled")
    assert made[first + 1 : first + 3] == ["unlink version-1", "unlink version-2"]


@given(junk=st.binary(max_size=50))
def test_a_torn_draft_beside_the_versions_is_never_read(junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        handle(SiteMemory(folder), request(), (Diary(1),))
        (folder / ".version-2.partial").write_bytes(junk)
        (folder / ".settled.partial").write_bytes(junk)
        assert entries(SiteMemory(folder), 1) == {"Diary": 1}
