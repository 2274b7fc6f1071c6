"""A site that says too much, too slowly, or what ends FLARE's own processes: the others' run goes on beside it.

The site's certificate is a true one; what its process for a job does is changed by a file on Python's path.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import SITES, task_over
from flare_consortium import COORDINATOR, FlareConsortium, _kill

from medfed.engine.deployed.submission import Submission
from medfed.spec.consortium import load_consortium
from medfed.spec.loading import task_of

pytestmark = pytest.mark.slow

HOSTILE = "west"
MEGABYTE = 2**20
LITTLE = 100 * MEGABYTE
"""What the coordinator's processes may take more than in an honest run, measured by their own memory."""

CUSTOMIZE = """\
import sys
from pathlib import Path

attack = Path(__file__).parent / "attack"
if attack.exists() and any("worker_process" in each for each in sys.orig_argv):
    exec(attack.read_text())
"""
ATTACK = """\
from medfed.engine.flare.desk import Desk
from medfed.engine.flare.letters import Letter

answered = Desk._answered

def answer(self, letter):
    honest = answered(self, letter)
    asked = b"train_locally" in letter.content and b"propose" not in letter.content
    return attack(self, letter) or honest if asked else honest

Desk._answered = answer
"""
OFFER = """\
def attack(desk, letter):
    return Letter(letter.number, b"", "0" * 32, 10 * 2**30)
"""
LETTER = """\
def attack(desk, letter):
    return Letter(letter.number, bytes(300 * 2**20))
"""
UNDECODABLE = """\
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey

def attack(desk, letter):
    update = Message({StreamHeaderKey.PAYLOAD_ENCODING: "fobs"}, b"no update")
    desk._post._cell.send_blob("server_command", "submit_update", desk._coordinator, update, optional=True)
"""


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareConsortium]:
    found = FlareConsortium.provision(tmp_path_factory.mktemp("consortium"))
    place = found.root / "customized"
    place.mkdir()
    (place / "sitecustomize.py").write_text(CUSTOMIZE)
    service = found.services[HOSTILE]
    found.services[HOSTILE] = replace(service, command=["env", f"PYTHONPATH={place}", *service.command])
    try:
        found.start()
        yield found
    finally:
        found.stop()
        _kill(found.processes())


class Memory:
    """The most that the coordinator's processes took together while it was watched, in bytes."""

    def __init__(self, consortium: FlareConsortium) -> None:
        self.most = 0
        self._consortium = consortium

    def now(self) -> int:
        """Proportional set sizes: what processes share counts once."""
        taken = 0
        for pid in self._consortium.processes(COORDINATOR):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                taken += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return taken

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                self.most = max(self.most, self.now())
            self.most = max(self.most, self.now())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def wait_for_quiet(consortium: FlareConsortium) -> None:
    """Processes for a job outlive its run by some seconds, and a client whose line was cut dials again after ten."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not consortium.processes_of(COORDINATOR, "job") and is_connected(consortium, HOSTILE):
            return
        time.sleep(0.1)


def is_connected(consortium: FlareConsortium, site: str) -> bool:
    """Whether a site's client has a line to the coordinator, by the system's own table of connections."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{address(consortium)[1]:04X}"
    lines = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port) and row[3] == "01"}
    held = set()
    for pid in consortium.processes_of(site, "flare"):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(str(descriptor.readlink()))
    return not lines.isdisjoint(held)


def run(
    consortium: FlareConsortium, name: str, attack: str | None = None, deadline: float = 60.0
) -> tuple[Submission, list[Any], int]:
    """A run of four with a quorum of three: its events, and the most that the coordinator took for it."""
    path = consortium.root / "customized" / "attack"
    path.unlink(missing_ok=True)
    if attack is not None:
        path.write_text(attack + ATTACK)
    task = task_over(dict.fromkeys(SITES, "rows"), rounds=2, quorum=0.75, deadline=deadline)
    wait_for_quiet(consortium)
    memory = Memory(consortium)
    begun = memory.now()
    submission = consortium.submit(task_of(task.document.data | {"name": name}))
    with memory.watched():
        events = consortium.follow(submission, 120)
    return submission, events, memory.most - begun


def services(consortium: FlareConsortium) -> list[int]:
    return sorted(consortium.processes_of(COORDINATOR, "service") + consortium.processes_of(COORDINATOR, "flare"))


def absent(events: list[dict[str, Any]]) -> set[tuple[int, str]]:
    return {(e["round"], each["site"]) for e in events if e["event"] == "round" for each in e["absent"]}


@pytest.fixture(scope="module")
def honest(consortium: FlareConsortium) -> int:
    """The most that the coordinator took for an honest run."""
    run(consortium, "warming up")
    _, events, most = run(consortium, "honest")
    assert events[-1]["event"] == "finished" and not absent(events)
    return most


def address(consortium: FlareConsortium) -> tuple[str, int]:
    at = load_consortium(consortium.folder(COORDINATOR) / "consortium.yaml").coordinator
    return at.host, at.port


@contextlib.contextmanager
def connected(consortium: FlareConsortium) -> Iterator[ssl.SSLSocket]:
    """A connection by the site's own certificate, over which no software of FLARE's speaks."""
    kit = consortium.folder(HOSTILE) / "flare" / "startup"
    context = ssl.create_default_context(cafile=kit / "rootCA.pem")
    context.check_hostname = False
    context.load_cert_chain(kit / "client.crt", kit / "client.key")
    with socket.create_connection(address(consortium), 10) as line, context.wrap_socket(line) as secure:
        yield secure


@pytest.mark.parametrize("length", [2**31 - 2**21, 2**32 - 1], ids=["the largest of FLARE's", "the largest of all"])
def test_a_frame_of_gigabytes_that_is_announced_takes_no_memory(
    consortium: FlareConsortium, honest: int, length: int
) -> None:
    """A frame's length has four bytes: nobody can announce more."""
    wait_for_quiet(consortium)
    memory, before = Memory(consortium), services(consortium)
    begun = memory.now()
    with connected(consortium) as line, memory.watched(), contextlib.suppress(OSError):
        line.sendall(struct.pack(">IHBBHHHH", length, 0, 1, 0, 0, 0, 1, 1))
        for _ in range(8):
            line.sendall(bytes(MEGABYTE))
            time.sleep(0.5)
    assert services(consortium) == before
    assert memory.most < begun + LITTLE


def test_who_connects_and_says_nothing_keeps_nobody_out(consortium: FlareConsortium, honest: int) -> None:
    """Not even a certificate is needed for it."""
    with socket.create_connection(address(consortium), 10):
        time.sleep(0.5)
        with connected(consortium) as line:
            assert line.version()


@pytest.mark.parametrize(("attack", "deadline"), [(OFFER, 60.0), (LETTER, 30.0)], ids=["offered", "sent at once"])
def test_an_answer_of_any_size_hurts_only_its_sender(
    consortium: FlareConsortium, honest: int, attack: str, deadline: float, request: pytest.FixtureRequest
) -> None:
    """10 GiB that are offered, which nobody fetches; 300 MiB that are sent, which nobody takes."""
    before = services(consortium)
    submission, events, most = run(consortium, request.node.callspec.id, attack, deadline)
    assert events[-1]["event"] == "finished", events[-1]
    assert absent(events) == {(1, HOSTILE), (2, HOSTILE)}
    assert services(consortium) == before
    assert most < honest + LITTLE
    assert not consortium.verified(submission).wrong


def test_an_update_that_cannot_be_decoded_ends_no_process_of_the_coordinators(
    consortium: FlareConsortium, honest: int
) -> None:
    """FLARE would end its process for the job, and again that of the next one."""
    before = services(consortium)
    submission, events, _ = run(consortium, "an update", UNDECODABLE)
    assert events[-1]["event"] == "finished", events[-1]
    assert [event["event"] for event in events].count("job") == 1
    assert services(consortium) == before
    assert not consortium.verified(submission).wrong
