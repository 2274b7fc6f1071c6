from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_parts import Part, Ping, part, reply_to, request

from medfed.core.errors import DataError, MedFedError
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.shared import SharedBuffer
from medfed.engine.workers import ATTEMPTS, Workers
from medfed.govern.heads import Head

SITES = [["a", "d"], ["b", "e"], ["c"]]
EVERYONE = sorted(site for sites in SITES for site in sites)


@dataclass
class Sites:
    """A host whose sites add their process's id to the number they are sent; ``deadly`` ones kill their process.

    A file in ``folder`` counts how often each was asked.
    """

    names: Sequence[str]
    folder: Path
    deadly: dict[str, int] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)

    def handle(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        for each in requests:
            asked = self.folder / each.site
            with asked.open("a") as file:
                file.write("x")
            if asked.stat().st_size <= self.deadly.get(each.site, 0):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.slow.get(each.site, 0.0))
            assert isinstance(each.message, Ping)
            yield [reply_to(each, part(float(each.message.number), float(os.getpid())))]

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        if round_number < 0:
            raise MedFedError("a head cannot be signed")
        return {site: Head(round_number, "00", round_number, "now", "00") for site in self.names}

    def witness(self, head: Head, party: str) -> None:
        if head.round < 0:
            raise MedFedError("a head cannot be witnessed")
        (self.folder / f"witness-{os.getpid()}").write_text(f"{head.size} {party}")

    def close(self, status: str) -> dict[str, Head]:
        return {}

    def spent(self) -> dict[Phase, float]:
        return dict.fromkeys(Phase, 1.0)

    def detach(self) -> None:
        pass


@contextmanager
def workers(folder: Path, **behaviour: dict[str, float]) -> Iterator[Workers]:
    opened = Workers(lambda names: Sites(names, folder, **behaviour), SITES, Timings())  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        processes = opened.processes
        opened.detach()
        assert not any(Path(f"/proc/{process}").exists() for process in processes)


def ask(opened: Workers, number: int = 7) -> list[Reply]:
    message = Ping(number)
    return list(opened.exchange([request(site=site, message=message) for site in EVERYONE]))


def values(replies: Sequence[Reply]) -> dict[str, tuple[float, int]]:
    """Site → (the number it answered, the process it lives in)."""
    found = {}
    for reply in replies:
        assert isinstance(reply.body, Part)
        number, process = reply.body.values.tolist()
        found[reply.site] = number, int(process)
    return found


def test_every_site_answers_once_from_the_process_in_which_it_lives(tmp_path: Path) -> None:
    with workers(tmp_path) as opened:
        first, second = values(ask(opened)), values(ask(opened, 8))
    assert sorted(first) == sorted(second) == EVERYONE
    assert {number for number, _ in first.values()} == {7.0}
    assert {number for number, _ in second.values()} == {8.0}
    homes = [{np.float32(first[site][1]) for site in sites} for sites in SITES]
    assert all(len(home) == 1 for home in homes)
    assert len(set.union(*homes)) == 3 and os.getpid() not in set.union(*homes)
    assert {site: home for site, (_, home) in first.items()} == {site: home for site, (_, home) in second.items()}


def test_a_worker_that_dies_is_replaced_and_its_sites_run_again(tmp_path: Path) -> None:
    with workers(tmp_path, deadly={"d": 1}) as opened:
        before = opened.processes
        replies = values(ask(opened))
        after = opened.processes
    assert sorted(replies) == EVERYONE
    assert (tmp_path / "d").stat().st_size == 2
    assert (tmp_path / "b").stat().st_size == 1
    assert after[0] != before[0] and after[1:] == before[1:]


def test_a_site_that_kills_every_worker_fails_and_the_others_answer(tmp_path: Path) -> None:
    with workers(tmp_path, deadly={"a": 1000}) as opened:
        replies = ask(opened)
        assert [r.site for r in replies if isinstance(r.body, Failure)] == ["a"]
        (failed,) = (r for r in replies if r.site == "a")
        assert isinstance(failed.body, Failure) and f"died {ATTEMPTS} times" in failed.body.sentence
        assert failed.request == request(site="a", message=Ping(7)).digest()
    assert sorted(r.site for r in replies) == EVERYONE
    assert (tmp_path / "a").stat().st_size == ATTEMPTS


def test_an_exchange_that_is_left_early_does_not_disturb_the_next(tmp_path: Path) -> None:
    with workers(tmp_path, slow=dict.fromkeys("ad", 0.2)) as opened:
        begun = opened.exchange([request(site=site, message=Ping(1)) for site in EVERYONE])
        next(begun)
        begun.close()  # type: ignore[attr-defined]
        assert {number for number, _ in values(ask(opened, 2)).values()} == {2.0}


def test_each_site_may_be_sent_another_message(tmp_path: Path) -> None:
    with workers(tmp_path) as opened:
        numbers = dict(zip(EVERYONE, range(5), strict=True))
        replies = opened.exchange([request(site=site, message=Ping(n)) for site, n in numbers.items()])
        assert {site: number for site, (number, _) in values(list(replies)).items()} == numbers


def test_an_error_at_the_opening_is_told_and_ends_all(tmp_path: Path) -> None:
    def open_host(names: Sequence[str]) -> Sites:
        if "b" in names:
            raise DataError("no row has a value", where="b", remedy="mend it")
        return Sites(names, tmp_path)

    with pytest.raises(DataError) as raised:
        Workers(open_host, SITES, Timings())
    assert (raised.value.where, raised.value.remedy) == ("b", "mend it")


def test_commands_reach_every_worker_also_one_that_died(tmp_path: Path) -> None:
    with workers(tmp_path) as opened:
        os.kill(opened.processes[1], signal.SIGKILL)
        assert sorted(opened.sign_heads(3)) == EVERYONE
        opened.witness(Head(5, "00", 3, "now", "00"), "coordinator")
        assert opened.spent()[Phase.TRAIN] == 3.0
        assert [f.read_text() for f in tmp_path.glob("witness-*")] == ["5 coordinator"] * 3
        with pytest.raises(MedFedError, match="a head cannot be signed"):
            opened.sign_heads(-1)


def test_an_error_that_nobody_waited_for_is_told_by_the_next_answer_and_disturbs_no_later_one(tmp_path: Path) -> None:
    with workers(tmp_path) as opened:
        opened.witness(Head(5, "00", -1, "now", "00"), "coordinator")
        with pytest.raises(MedFedError, match="a head cannot be witnessed"):
            ask(opened)
        for number in (8, 9):
            assert {found for found, _ in values(ask(opened, number)).values()} == {float(number)}
        with pytest.raises(MedFedError, match="a head cannot be signed"):
            opened.sign_heads(-1)
        assert {head.size for head in opened.sign_heads(4).values()} == {4}
        assert {found for found, _ in values(ask(opened, 3)).values()} == {3.0}


@pytest.mark.parametrize("moment", ["while replies are read", "while an answer comes", "while a command is sent"])
def test_after_an_interruption_at_any_moment_the_next_exchange_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A worker that may wait for something else than this side believes is replaced."""
    kind, name = {
        "while replies are read": (SharedBuffer, "unpack"),
        "while an answer comes": (Connection, "recv"),
        "while a command is sent": (Connection, "send"),
    }[moment]
    original, here = getattr(kind, name), os.getpid()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if os.getpid() == here:
            monkeypatch.setattr(kind, name, original)
            raise KeyboardInterrupt
        return result

    with workers(tmp_path) as opened:
        before = opened.processes
        monkeypatch.setattr(kind, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask(opened)
        assert {number for number, _ in values(ask(opened, 2)).values()} == {2.0}
        assert sorted(opened.sign_heads(3)) == EVERYONE
        assert len(set(before) - set(opened.processes)) == 1


def test_the_first_workers_sites_can_live_in_this_process(tmp_path: Path) -> None:
    opened = Workers(
        lambda names: Sites(names, tmp_path), SITES, Timings(), own=lambda: Sites(SITES[0], tmp_path, slow={"a": 0.1})
    )
    try:
        found = values(ask(opened))
        homes = [{home for site, (_, home) in found.items() if site in sites} for sites in SITES]
        assert homes[0] == {np.float32(os.getpid())} and not homes[0] & (homes[1] | homes[2])
        assert len(opened.processes) == 2
        assert sorted(opened.sign_heads(3)) == EVERYONE
        opened.witness(Head(5, "00", 3, "now", "00"), "coordinator")
        assert opened.spent()[Phase.TRAIN] == 2.0
        assert len(list(tmp_path.glob("witness-*"))) == 3
        os.kill(opened.processes[0], signal.SIGKILL)
        assert sorted(values(ask(opened))) == EVERYONE
    finally:
        opened.detach()


def test_workers_end_with_their_parent_however_it_ends(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from medfed.core.timings import Timings
from medfed.engine.workers import Workers
class Idle: pass
opened = Workers(lambda names: Idle(), [["a"], ["b"]], Timings())
print(*opened.processes, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [Path(f"/proc/{process}") for process in parent.stdout.readline().split()]
    assert len(children) == 2 and all(child.exists() for child in children)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(_alive(child) for child in children)


def _alive(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
