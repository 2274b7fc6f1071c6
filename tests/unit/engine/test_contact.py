from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext

from medfed.engine.flare.contact import Contact, Line
from medfed.engine.flare.health import Sign


@dataclass
class Desk:
    """A line under a clock that a test sets; the answer's file is dated by it too."""

    line: Line
    answer: Sign
    now: float = 1000.0
    reachable: bool = True
    looks: int = 0

    def answered(self) -> None:
        self.answer.give()
        os.utime(self.answer.path, (self.now, self.now))

    def lost_after(self, seconds: float, answering: bool = False) -> bool:
        """Whether the line is ever lost within so many seconds, looked at twice a second, as the service does."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            if answering:
                self.answered()
            if self.line.is_lost():
                return True
        return False


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    answer = Sign(tmp_path / "answered")

    def reached() -> bool:
        made.looks += 1
        return made.reachable

    made = Desk(Line(answer, reached, patience=60.0), answer)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "time", lambda: made.now)
    return made


def test_a_client_that_is_answered_keeps_its_line_and_nobody_looks(desk: Desk) -> None:
    assert not desk.lost_after(3600, answering=True)
    assert desk.looks == 0


def test_a_client_that_is_not_answered_by_a_coordinator_that_is_there_has_lost_its_line(desk: Desk) -> None:
    desk.answered()
    assert not desk.lost_after(70)
    assert desk.lost_after(10)


def test_a_client_that_was_never_answered_has_lost_it_too(desk: Desk) -> None:
    assert not desk.lost_after(59)
    assert desk.lost_after(3)


def test_a_coordinator_that_is_away_is_waited_for_and_looked_for_every_ten_seconds(desk: Desk) -> None:
    desk.reachable = False
    assert not desk.lost_after(3600)
    assert desk.looks == pytest.approx(360, abs=2)


def test_patience_begins_when_the_coordinator_is_back(desk: Desk) -> None:
    desk.reachable = False
    assert not desk.lost_after(600)
    desk.reachable = True
    assert not desk.lost_after(55)
    desk.answered()
    assert not desk.lost_after(70)


def test_a_coordinator_that_comes_and_goes_is_waited_for(desk: Desk) -> None:
    for _ in range(20):
        desk.reachable = not desk.reachable
        assert not desk.lost_after(50)


def test_only_answers_are_noted(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    component = Contact(str(noted))
    for event in (EventType.SYSTEM_START, EventType.BEFORE_CLIENT_HEARTBEAT):
        component.handle_event(event, FLContext())
        assert not noted.exists()
    component.handle_event(EventType.AFTER_CLIENT_HEARTBEAT, FLContext())
    assert noted.exists()
