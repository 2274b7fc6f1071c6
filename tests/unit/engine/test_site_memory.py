from __future__ import annotations

import copy
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from engine_parts import Diary, Mood, Ping, Pong, request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from medfed.core.codec import encode
from medfed.core.errors import MemoryLost
from medfed.core.messages import Message
from medfed.core.wire import Reply, Request
from medfed.engine import large
from medfed.engine.memory import SiteMemory
from medfed.engine.store import RunStore


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


@pytest.fixture(params=["in the process", "in a file"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SiteMemory]:
    with RunStore.open(None if request.param == "in the process" else tmp_path / "store") as store:
        yield store.site("north")


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


def test_new_versions_are_written_over_what_no_longer_counts(tmp_path: Path) -> None:
    with RunStore.open(tmp_path / "store") as store:
        memory = store.site("north")
        for number in range(1, 15):
            handle(memory, request(base=number - 1, call=number), (Diary(number), Mood(number)))
        memory.settle(14)
        for number in range(15, 30):
            handle(memory, request(base=number - 1, call=number), (Diary(number),))
            memory.settle(number)
    held = sqlite3.connect(tmp_path / "store")
    rows = [number for (number,) in held.execute("SELECT number FROM version ORDER BY number")]
    assert rows[-1] == 29 and len(rows) <= 9
    diaries = held.execute("SELECT version FROM kept WHERE kind = 'test.engine.diary' ORDER BY version").fetchall()
    assert diaries[-1] == (29,) and len(diaries) <= 14
    held.close()
    with RunStore.open(tmp_path / "store") as store:
        assert entries(store.site("north"), 29) == {"Diary": 29, "Mood": 14}


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


class Undone(Exception):
    """A transaction ends without a commit."""


class MemoryBesideModel(RuleBasedStateMachine):
    """Any coordinator, right or wrong, and a site that may be restarted between any two requests."""

    @initialize(in_files=st.booleans())
    def open(self, in_files: bool) -> None:
        self.patch = mock.patch.object(large, "_LARGE", 0 if in_files else 2**18)
        self.patch.start()
        self.folder = tempfile.TemporaryDirectory()
        self._open()
        self.model = ModelMemory()
        self.asked: list[Request] = []

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.store.close()
            self.folder.cleanup()
            self.patch.stop()

    def _open(self) -> None:
        self.store = RunStore.open(Path(self.folder.name) / "store")
        self.memory = self.store.site("north")

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
        self.store.close()
        self._open()
        self._say_again_what_is_settled()

    def _say_again_what_is_settled(self) -> None:
        """As the next request does: a process may end before the store has forgotten what was folded."""
        self.memory.settle(self.model.settled[0])

    @rule(back=numbers, diary=st.none() | numbers, fails=st.booleans(), restarts=st.booleans())
    def ask_twice_in_one_transaction(self, back: int, diary: int | None, fails: bool, restarts: bool) -> None:
        before = copy.deepcopy(self.model)
        try:
            with self.store.transaction():
                for call in (7, 8):
                    base = self.model.newest - (back if call == 7 else 0)
                    self._handle(request(base=base, settled=base, call=call), diary, None)
                if fails:
                    raise Undone
        except Undone:
            self.model = before
            self._say_again_what_is_settled()
        if restarts:
            self.restart()

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
        files = {file.name for file in Path(self.folder.name).glob("store-large/*/*")}
        assert files == self.memory._versions().files
        assert self.memory.requests == self.model.requests
        assert self.memory.released_bytes == 10 * self.model.requests


TestMemoryBesideModel = MemoryBesideModel.TestCase
TestMemoryBesideModel.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


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


def play(path: Path, start: int = 0) -> None:
    """Handle the script from one request on, noting each that is answered."""
    with RunStore.open(path) as store, path.with_name("answered").open("a") as answered:
        for asked, kept in SCRIPT[start:]:
            handle(store.site("north"), asked, kept)
            answered.write("x")
            answered.flush()


def play_until(path: Path, kill_at: int) -> None:
    """Play the script; this process is killed before its n-th SQL statement or change of a file."""
    operations = 0

    def count(event: str, arguments: Any) -> None:
        nonlocal operations
        if event in ("sql", "os.remove", "os.mkdir") or (event == "open" and str(path) in str(arguments[0])):
            operations += 1
            if operations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: count("sql", statement))
        return connection

    sqlite3.connect = traced
    play(path)
    path.with_name("operations").write_text(str(operations))


def in_a_child(path: Path, kill_at: int) -> int:
    """The signal that ended a process of its own, in which the script was played, or 0."""
    child = os.fork()
    if child == 0:
        play_until(path, kill_at)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def state_of(path: Path) -> tuple[Any, ...]:
    with RunStore.open(path) as store:
        memory = store.site("north")
        state = entries(memory, 8), memory.requests, memory.released_bytes
    held = sqlite3.connect(path)
    tables = [held.execute(f"SELECT * FROM {name}").fetchall() for name in ("settled", "version", "kept")]
    held.close()
    files = {file.name: file.read_bytes() for file in path.parent.glob("store-large/*/*")}
    return *state, tables, files


@pytest.mark.parametrize(
    "size", [pytest.param(0, id="all in files", marks=pytest.mark.slow), pytest.param(2**18, id="all in the database")]
)
def test_a_kill_before_any_operation_loses_nothing(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_LARGE", size)
    unbroken = tmp_path / "unbroken" / "store"
    unbroken.parent.mkdir()
    assert in_a_child(unbroken, 10**9) == 0
    expected = state_of(unbroken)
    assert len(expected[-1]) == (4 if size == 0 else 0)
    operations = int(unbroken.with_name("operations").read_text())
    assert operations > 40
    for number in range(1, operations + 1):
        killed = tmp_path / str(number) / "store"
        killed.parent.mkdir()
        assert in_a_child(killed, number) == signal.SIGKILL
        answered = killed.with_name("answered")
        play(killed, start=len(answered.read_text()) if answered.exists() else 0)
        assert state_of(killed) == expected
