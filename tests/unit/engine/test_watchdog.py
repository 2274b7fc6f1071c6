from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nvflare", reason="the extra flare is not installed")

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.private.defs import CellChannel, CellChannelTopic

from medfed.engine.flare.health import Sign
from medfed.engine.flare.listener import Listener
from medfed.engine.flare.watchdog import Watchdog


@dataclass
class Desk:
    """A watchdog under a clock that a test sets; that of the disk is behind."""

    answered: Sign
    clock: list[float]
    reachable: bool = True
    looks: int = 0
    watchdog: Watchdog = field(init=False)

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.answered, self.reached)

    def reached(self) -> bool:
        self.looks += 1
        return self.reachable

    def answer(self) -> None:
        self.answered.give()
        os.utime(self.answered.path, (self.clock[0] - 500, self.clock[0] - 500))

    def lost_after(self, seconds: float, answering: bool = False) -> bool:
        """Whether the client is lost at any of the looks that are taken every five seconds."""
        until = self.clock[0] + seconds
        while self.clock[0] < until:
            self.clock[0] += 5.0
            if answering:
                self.answer()
            self.watchdog.look()
            if self.watchdog.client_is_lost:
                return True
        return False


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return Desk(Sign(tmp_path / "answered"), clock)


def test_a_client_that_is_answered_is_left_alone_and_so_is_the_coordinator(desk: Desk) -> None:
    assert not desk.lost_after(3600, answering=True)
    assert desk.looks == 0


def test_a_client_that_a_coordinator_which_is_there_does_not_answer_is_lost(desk: Desk) -> None:
    assert not desk.lost_after(600, answering=True)
    assert not desk.lost_after(130)
    assert desk.lost_after(10)


def test_a_client_that_was_never_answered_is_lost_too(desk: Desk) -> None:
    assert not desk.lost_after(130)
    assert desk.lost_after(10)


def test_an_answer_to_an_earlier_client_is_none_to_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Sign(tmp_path / "answered")
    answered.give()
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watchdog = Watchdog(answered, lambda: True)
    for _ in range(28):
        now[0] += 5
        watchdog.look()
    assert watchdog.client_is_lost


def test_an_answer_that_comes_while_the_coordinator_is_looked_for_counts(desk: Desk) -> None:
    def slow() -> bool:
        desk.answer()
        return True

    desk.watchdog = Watchdog(desk.answered, slow)
    assert not desk.lost_after(3600)


def test_a_coordinator_that_is_away_is_waited_for(desk: Desk) -> None:
    desk.reachable = False
    assert not desk.lost_after(3600)
    assert desk.looks == 718, "every five seconds, but for the first fifteen"


def test_patience_begins_when_the_coordinator_is_back_and_ends_with_an_answer(desk: Desk) -> None:
    desk.reachable = False
    assert not desk.lost_after(600)
    desk.reachable = True
    assert not desk.lost_after(115)
    desk.answer()
    assert not desk.lost_after(130)


def test_a_coordinator_that_comes_and_goes_is_waited_for(desk: Desk) -> None:
    for _ in range(20):
        desk.reachable = not desk.reachable
        assert not desk.lost_after(110)


class Cell:
    """Of FLARE's cell, what a listener uses."""

    def __init__(self) -> None:
        self.filters: dict[tuple[str, str], Any] = {}

    def add_incoming_reply_filter(self, channel: str, topic: str, call: Any) -> None:
        self.filters[channel, topic] = call


def test_only_what_the_server_takes_is_noted(tmp_path: Path) -> None:
    noted, cell, context = tmp_path / "noted", Cell(), FLContext()
    context.set_prop(FLContextKey.SITE_OBJ, SimpleNamespace(cell=SimpleNamespace(core_cell=cell)))
    listener = Listener(str(noted))
    listener.handle_event(EventType.SYSTEM_START, context)
    assert not cell.filters
    listener.handle_event(EventType.SYSTEM_BOOTSTRAP, context)
    heard = cell.filters[CellChannel.SERVER_MAIN, CellChannelTopic.HEART_BEAT]
    for refused in (ReturnCode.UNAUTHENTICATED, ReturnCode.COMM_ERROR, ReturnCode.TARGET_UNREACHABLE):
        heard(make_reply(refused))
        listener.handle_event(EventType.AFTER_CLIENT_HEARTBEAT, context)
        assert not noted.exists()
    heard(make_reply(ReturnCode.OK))
    assert noted.exists()
