"""The post between FLARE's cells: three real ones in this process, which reach each other over TCP."""

from __future__ import annotations

import io
import logging
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nvflare")

from nvflare.apis.client import Client
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.message import Message as Cargo
from nvflare.fuel.f3.streaming.stream_types import Stream, StreamError, StreamFuture

from medfed.core.codec import Buffer, decode, encode
from medfed.core.errors import CodecError, MedFedError, Refused, RunFolderError
from medfed.core.messages import Message
from medfed.engine.deployed.messages import Ended, ToSite
from medfed.engine.flare import carrier as carriers
from medfed.engine.flare import post as posts
from medfed.engine.flare import streams, turns
from medfed.engine.flare.carrier import FlareCarrier
from medfed.engine.flare.desk import Desk
from medfed.engine.flare.letters import Letter, Wanted
from medfed.engine.flare.post import Post
from medfed.engine.flare.streams import Download, Pieces
from medfed.engine.flare.turns import Turns

SERVER, FIRST, SECOND = "server", "site-1.job", "site-2.job"
LONG = 120.0
"""Seconds after which a test gives up."""

A_WHILE = 0.3
"""Seconds in which what should not happen would have happened."""


@pytest.fixture(scope="module")
def cells() -> Iterator[dict[str, Cell]]:
    """FLARE would bring messages of cells in one process past the network, and so it is not told of them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        url = f"tcp://localhost:{free.getsockname()[1]}"
    made = {}
    for name in (SERVER, FIRST, SECOND):
        made[name] = Cell(name, url, False, {})
        CoreCell.ALL_CELLS.clear()
        made[name].core_cell.start()
    until(lambda: {FIRST, SECOND} <= made[SERVER].core_cell.agents.keys())
    yield made
    for name in (SECOND, FIRST, SERVER):
        made[name].core_cell.stop()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes many seconds at work takes parts of one here."""
    monkeypatch.setattr(streams, "_STALLED", 0.5)
    monkeypatch.setattr(streams, "_LOOK_UP", 0.05)
    monkeypatch.setattr(carriers, "_LOOK_UP", 0.05)
    monkeypatch.setattr(carriers, "collect_often", lambda: None)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


@pytest.fixture
def give_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, what does not come is asked for only twice."""

    def soon() -> None:
        monkeypatch.setattr(streams, "_STALLED", 0.1)
        monkeypatch.setattr(streams, "_STALLS", 2)

    return soon


@dataclass
class Office:
    """A post office of a cell, and what came to it: (origin, letter)."""

    name: str
    post: Post
    came: SimpleQueue[tuple[str, Letter]]

    def next(self) -> tuple[str, Letter]:
        return self.came.get(timeout=LONG)

    def nothing_more(self) -> bool:
        with suppress(Empty):
            self.came.get(timeout=A_WHILE)
            return False
        return True


def office(cells: dict[str, Cell], name: str) -> Office:
    came: SimpleQueue[tuple[str, Letter]] = SimpleQueue()
    return Office(name, Post(cells[name], lambda origin, letter: came.put((origin, letter))), came)


def fetched(by: Office, source: Office | str, letter: Letter, folder: Path, largest: int = 2**26) -> Buffer:
    name = source if isinstance(source, str) else source.name
    return by.post.opened(name, letter, folder, largest, lambda: True)


def odd_pieces(megabytes: int = 5) -> list[Buffer]:
    """Several MB in pieces of odd sizes, some of them empty; views among them."""
    noise = random.Random(7)
    sizes = [0, 1, 2**20, 17, 0, 0, 2**20 - 1, 3 * 2**19 + 5, 65_537, 0, 2**20 + 1, 0]
    sizes.insert(5, max(0, megabytes * 2**20 - sum(sizes)))
    return [memoryview(noise.randbytes(size)) if size % 2 else noise.randbytes(size) for size in sizes]


def asked_positions(monkeypatch: pytest.MonkeyPatch, lost: int = 0) -> list[tuple[str, int]]:
    """To whom streams are sent, and from where on; so many of the first are not sent at all."""
    asked: list[tuple[str, int]] = []
    send_stream = Cell.send_stream

    def noted(self: Cell, channel: str, topic: str, to: str, cargo: Cargo, optional: bool) -> StreamFuture:
        asked.append((to, cargo.payload._position))
        if len(asked) > lost:
            return send_stream(self, channel, topic, to, cargo, optional=optional)
        nothing = StreamFuture(0)
        nothing.set_result(0)
        return nothing

    monkeypatch.setattr(Cell, "send_stream", noted)
    return asked


class Given(Stream):  # type: ignore[misc]
    """A stream that brings what it was given."""

    def __init__(self, *chunks: Any) -> None:
        super().__init__()
        self._chunks = list(chunks)

    def read(self, size: int) -> Any:
        return self._chunks.pop(0) if self._chunks else b""


# ------------------------------------------------------------------------------------------------------- the post


def test_a_small_letter_arrives_once_from_whom_it_is(cells: dict[str, Cell]) -> None:
    sender, receiver = office(cells, FIRST), office(cells, SERVER)
    letter = sender.post.letter("small", [b"some ", b"", memoryview(b"bytes")], SERVER)
    sender.post.send(SERVER, letter)
    origin, came = receiver.next()
    assert (origin, came.number, came.content, came.reference) == (FIRST, "small", b"some bytes", "")
    assert receiver.nothing_more()


def test_clients_write_to_each_other_through_the_server(cells: dict[str, Cell]) -> None:
    sender, receiver = office(cells, FIRST), office(cells, SECOND)
    sender.post.send(SECOND, Letter("across", b"content"))
    origin, came = receiver.next()
    assert (origin, came.number, came.content) == (FIRST, "across", b"content")


@pytest.mark.parametrize(("source", "to"), [(FIRST, SERVER), (SERVER, SECOND), (FIRST, SECOND)])
def test_a_large_message_arrives_as_it_was(cells: dict[str, Cell], tmp_path: Path, source: str, to: str) -> None:
    sender, receiver, pieces = office(cells, source), office(cells, to), odd_pieces()
    sender.post.send(to, sender.post.letter("large", pieces, to))
    _, letter = receiver.next()
    assert letter.content == b"" and letter.size == sum(map(len, pieces)) > posts.LARGE
    content = fetched(receiver, source, letter, tmp_path)
    assert isinstance(content, memoryview) and content.readonly
    assert content == b"".join(pieces)


def test_a_message_just_below_the_limit_is_in_its_letter(cells: dict[str, Cell], tmp_path: Path) -> None:
    sender, receiver, content = office(cells, FIRST), office(cells, SERVER), os.urandom(posts.LARGE - 1)
    sender.post.send(SERVER, sender.post.letter("edge", [content], SERVER))
    _, letter = receiver.next()
    assert fetched(receiver, sender, letter, tmp_path / "none") == content
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the open files of a process are told by Linux")
def test_what_arrives_is_nobody_elses_to_read_and_leaves_nothing(cells: dict[str, Cell], tmp_path: Path) -> None:
    sender, receiver, folder = office(cells, FIRST), office(cells, SERVER), tmp_path / "new" / "spool"
    letter = sender.post.letter("private", odd_pieces(), SERVER)
    seen: list[tuple[list[int], list[Path]]] = []

    def awaited() -> bool:
        seen.append((open_modes(folder), list(folder.iterdir())))
        return True

    before = os.umask(0)
    try:
        content = receiver.post.opened(FIRST, letter, folder, 2**26, awaited)
    finally:
        os.umask(before)
    assert seen and all(modes == [0o600] and not names for modes, names in seen)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(folder.iterdir()) and len(content) == letter.size
    del content
    assert open_modes(folder) == []


def open_modes(folder: Path) -> list[int]:
    """The permissions of the files of a folder that are open in this process, also of those without a name."""
    modes = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                modes.append(stat.S_IMODE(link.stat().st_mode))
    return modes


def test_two_fetch_into_one_folder(cells: dict[str, Cell], tmp_path: Path) -> None:
    receiver = office(cells, SERVER)
    first, second = office(cells, FIRST), office(cells, SECOND)
    ours, theirs = first.post.letter("a", odd_pieces(4), SERVER), second.post.letter("b", odd_pieces(6), SERVER)
    found: dict[str, Buffer] = {}

    def fetch(source: Office, letter: Letter) -> None:
        found[source.name] = fetched(receiver, source, letter, tmp_path)

    threads = [threading.Thread(target=fetch, args=each) for each in ((first, ours), (second, theirs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert found == {FIRST: b"".join(odd_pieces(4)), SECOND: b"".join(odd_pieces(6))}


def test_what_is_withdrawn_cannot_be_fetched(
    cells: dict[str, Cell], tmp_path: Path, give_up: Callable[[], None]
) -> None:
    give_up()
    sender, receiver = office(cells, FIRST), office(cells, SERVER)
    letter = sender.post.letter("gone", odd_pieces(), SERVER)
    sender.post.withdraw(letter)
    sender.post.withdraw(letter)
    with pytest.raises(CodecError, match=f"{letter.size} of its bytes are missing"):
        fetched(receiver, sender, letter, tmp_path)


def test_only_the_cell_it_was_offered_to_gets_it(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_up: Callable[[], None]
) -> None:
    asked = asked_positions(monkeypatch)
    sender, receiver, third = office(cells, SERVER), office(cells, FIRST), office(cells, SECOND)
    letter = sender.post.letter("theirs", odd_pieces(), FIRST)
    assert fetched(receiver, sender, letter, tmp_path) == b"".join(odd_pieces())
    give_up()
    with pytest.raises(CodecError, match=f"{letter.size} of its bytes are missing"):
        fetched(third, sender, letter, tmp_path)
    assert {to for to, _ in asked} == {FIRST}


def test_what_another_cell_streams_is_not_taken(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = office(cells, FIRST), office(cells, SERVER)
    letter = sender.post.letter("mine", odd_pieces(), SERVER)
    forged: list[str] = []
    send_stream = Cell.send_stream

    def late(self: Cell, channel: str, topic: str, to: str, cargo: Cargo, optional: bool) -> StreamFuture:
        other = Cargo(dict(cargo.headers), Pieces([bytes(2 * 2**20)], 0))
        with suppress(StreamError):
            send_stream(cells[SECOND], channel, topic, to, other, optional=True).result(LONG)
        forged.append(to)
        time.sleep(A_WHILE / 2)
        return send_stream(self, channel, topic, to, cargo, optional=optional)

    monkeypatch.setattr(streams, "_STALLED", LONG)
    monkeypatch.setattr(Cell, "send_stream", late)
    assert fetched(receiver, sender, letter, tmp_path) == b"".join(odd_pieces())
    assert forged == [SERVER]


def test_what_is_lost_on_the_way_is_asked_for_again(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_positions(monkeypatch, lost=1)
    sender, receiver, pieces = office(cells, FIRST), office(cells, SERVER), odd_pieces()
    letter = sender.post.letter("lost", pieces, SERVER)
    assert fetched(receiver, sender, letter, tmp_path) == b"".join(pieces)
    assert asked[:2] == [(SERVER, 0), (SERVER, 0)]


def test_after_a_cut_it_goes_on_where_it_was(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Pieces):
        """Ends with a fault; what was read before it has the time to arrive."""

        def __init__(self, pieces: Sequence[Buffer], position: int) -> None:
            super().__init__(pieces, position)
            self._end = position + 2_500_000

        def read(self, size: int) -> memoryview | bytes:
            if self._position > self._end:
                time.sleep(A_WHILE)
                raise OSError("the line is dead")
            return super().read(size)

    def made(pieces: Sequence[Buffer], position: int) -> Pieces:
        return (Cut if len(asked) < 3 else Pieces)(pieces, position)

    asked = asked_positions(monkeypatch)
    monkeypatch.setattr(posts, "Pieces", made)
    sender, receiver, pieces = office(cells, FIRST), office(cells, SERVER), odd_pieces(9)
    letter = sender.post.letter("cut", pieces, SERVER)
    assert fetched(receiver, sender, letter, tmp_path) == b"".join(pieces)
    positions = [position for _, position in asked]
    assert positions == sorted(positions) and 0 < positions[1] < positions[2] < letter.size


def test_a_late_stream_of_an_earlier_attempt_changes_nothing(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_again, went_on = threading.Event(), threading.Event()

    class Stuck(Pieces):
        """Stops in the middle, and goes on after the rest was asked for again."""

        def read(self, size: int) -> memoryview | bytes:
            if self._position > 2_500_000:
                asked_again.wait(LONG)
                went_on.set()
            return super().read(size)

    class Careful(Pieces):
        """Lets the other one go on when some of its own has arrived."""

        def __init__(self, pieces: Sequence[Buffer], position: int) -> None:
            super().__init__(pieces, position)
            self._end = position + 2_500_000

        def read(self, size: int) -> memoryview | bytes:
            if self._position > self._end and not went_on.is_set():
                time.sleep(A_WHILE / 2)
                asked_again.set()
                went_on.wait(LONG)
                time.sleep(A_WHILE)
            return super().read(size)

    def made(pieces: Sequence[Buffer], position: int) -> Pieces:
        return (Stuck if len(asked) == 1 else Careful)(pieces, position)

    asked = asked_positions(monkeypatch)
    monkeypatch.setattr(posts, "Pieces", made)
    sender, receiver, pieces = office(cells, FIRST), office(cells, SERVER), odd_pieces(9)
    letter = sender.post.letter("late", pieces, SERVER)
    assert fetched(receiver, sender, letter, tmp_path) == b"".join(pieces)
    assert went_on.is_set() and asked[1][1] > 0


def test_more_than_was_announced_is_neither_written_nor_taken(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    class Counted(io.FileIO):
        def write(self, data: Any) -> int:
            written.append(super().write(data))
            return written[-1]

    monkeypatch.setattr(streams, "TemporaryFile", lambda dir, buffering: Counted(dir / "file", "x+"))  # noqa: A006
    sender, receiver, pieces = office(cells, FIRST), office(cells, SERVER), odd_pieces()
    letter = replace(sender.post.letter("more", pieces, SERVER), size=2_500_000)
    with pytest.raises(CodecError, match="more bytes came than were announced"):
        fetched(receiver, sender, letter, tmp_path)
    time.sleep(A_WHILE)
    assert 0 < sum(written) <= letter.size


@pytest.mark.parametrize("size", [3_000_001, 2**80])
def test_what_is_too_large_is_not_asked_for(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    asked = asked_positions(monkeypatch)
    sender, receiver = office(cells, FIRST), office(cells, SERVER)
    letter = replace(sender.post.letter("vast", odd_pieces(), SERVER), size=size)
    with pytest.raises(CodecError, match="larger than there is reason for"):
        fetched(receiver, sender, letter, tmp_path / "none", largest=3_000_000)
    with pytest.raises(CodecError, match="larger than there is reason for"):
        fetched(receiver, sender, Letter("n", bytes(11)), tmp_path, largest=10)
    time.sleep(A_WHILE / 3)
    assert asked == [] and not (tmp_path / "none").exists()


def test_a_full_disk_is_told_with_its_folder(
    cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "r+"))
    sender, receiver = office(cells, FIRST), office(cells, SERVER)
    letter = sender.post.letter("full", odd_pieces(), SERVER)
    with pytest.raises(RunFolderError, match="No space left on device") as caught:
        fetched(receiver, sender, letter, tmp_path)
    assert caught.value.where == str(tmp_path) and "disk space" in caught.value.remedy


def test_a_folder_that_cannot_be_made_is_told(cells: dict[str, Cell], tmp_path: Path) -> None:
    sender, receiver, folder = office(cells, FIRST), office(cells, SERVER), tmp_path / "file" / "spool"
    folder.parent.write_text("in the way")
    letter = sender.post.letter("nowhere", odd_pieces(), SERVER)
    with pytest.raises(RunFolderError) as caught:
        fetched(receiver, sender, letter, folder)
    assert caught.value.where == str(folder)


def test_a_file_that_takes_little_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:7])

    monkeypatch.setattr(streams, "TemporaryFile", lambda dir, buffering: Short(dir / "file", "x+"))  # noqa: A006
    download, content = Download(Letter("n", b"", "r", 1000), tmp_path), os.urandom(1000)
    download.append(0, Given(content[:300], bytearray(content[300:301]), memoryview(content)[301:]))
    assert download.whole(lambda _: None, lambda: True) == content
    download.close()


@pytest.mark.parametrize("chunk", [np.zeros(9, "<f8"), np.zeros(1, "V4096"), "text", ["a", "list"], 3])
def test_only_bytes_are_written_and_none_too_many(tmp_path: Path, chunk: Any) -> None:
    """FLARE hands over whatever object a peer encoded: an array of a few elements may be of many bytes."""
    download = Download(Letter("n", b"", "r", 64), tmp_path)
    with pytest.raises((StreamError, TypeError, ValueError)):
        download.append(0, Given(b"12345678", chunk))
    assert os.fstat(download._file.fileno()).st_size == 8
    download.close()


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=40), min_size=1), st.data())
def test_pieces_are_the_bytes_from_a_position_on(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    position = data.draw(st.integers(0, len(whole)))
    stream, found = Pieces(pieces, position), b""
    assert stream.get_size() == len(whole) - position
    while read := stream.read(size := data.draw(st.integers(1, 50))):
        assert len(read) <= size
        found += read
    assert found == whole[position:] and stream.read(9) == b""


# --------------------------------------------------------------------------------------------------------- garbage


def test_garbage_is_dropped_and_harms_nothing(cells: dict[str, Cell], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)  # FLARE tells no louder of a fault with a letter that may get lost
    sender, receiver = office(cells, FIRST), office(cells, SERVER)

    def throw(payload: Any, topic: str = posts._LETTER) -> None:
        cells[FIRST].core_cell.fire_and_forget(posts._CHANNEL, topic, SERVER, Cargo(payload=payload), optional=True)

    good = encode(Letter("abcdefgh", b"content"))

    @settings(max_examples=60)
    @given(st.binary(max_size=200) | st.builds(_damaged, st.just(good), st.integers(0), st.integers(1, 255)))
    def throw_bytes(payload: bytes) -> None:
        throw(payload)
        throw(payload, posts._WANTED)

    throw_bytes()
    for thing in (None, "text", 7, [good], {"number": "1"}, Shareable(), (b"", b"")):
        throw(thing)
        throw(thing, posts._WANTED)
    throw(good.replace(b'"abcdefgh"', b"1234567890"))
    throw(good.replace(b'"size":0', b'"size":[]'[:8]))
    throw(encode(Wanted("r", 0, 1)))
    throw(encode(Ended()))
    for wanted in (Wanted("unknown", 0, 1), Wanted("", -1, -1), Wanted("r", 2**70, 2**70)):
        throw(encode(wanted), posts._WANTED)
    sender.post.send(SERVER, Letter("the good one", b"content"))
    time.sleep(A_WHILE)

    came = [receiver.next()[1]]
    while not receiver.came.empty():
        came.append(receiver.next()[1])
    assert "the good one" in {letter.number for letter in came}
    assert all(letter.content == b"content" or letter.number == "abcdefgh" for letter in came)
    assert not [record.getMessage() for record in caplog.records if "exception from CB" in record.getMessage()]


def _damaged(data: bytes, position: int, change: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes([data[position] ^ change]) + data[position + 1 :]


def test_a_position_outside_of_the_message_is_not_streamed(
    cells: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_positions(monkeypatch)
    sender, receiver = office(cells, FIRST), office(cells, SERVER)
    letter = sender.post.letter("n", odd_pieces(), SERVER)
    for position in (-1, letter.size, letter.size + 1, 2**70):
        receiver.post._tell(FIRST, posts._WANTED, Wanted(letter.reference, position, 1))
    receiver.post._tell(FIRST, posts._WANTED, Wanted(letter.reference, letter.size - 1, 1))
    time.sleep(A_WHILE)
    assert asked == [(SERVER, letter.size - 1)]


# ----------------------------------------------------------------------------------------------------------- turns


@contextmanager
def turns_taken(all_of: Turns, number: int) -> Iterator[threading.Event]:
    """So many turns, taken until the event is set."""
    let_go = threading.Event()
    taken = threading.Semaphore(0)

    def take() -> None:
        with all_of.turn():
            taken.release()
            let_go.wait(LONG)

    threads = [threading.Thread(target=take) for _ in range(number)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert taken.acquire(timeout=LONG)
    yield let_go
    let_go.set()
    for thread in threads:
        thread.join(LONG)


def test_two_have_their_turn_and_a_third_goes_after_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PATIENCE", 0.1)
    all_of = Turns()
    with turns_taken(all_of, 1):
        assert _seconds(all_of) < 0.1
    with turns_taken(all_of, 2):
        assert 0.1 <= _seconds(all_of) < LONG
        assert 0.1 <= _seconds(all_of) < LONG
    assert _seconds(all_of) < 0.1


def test_a_turn_is_given_on_also_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PATIENCE", LONG)
    all_of = Turns()
    for _ in range(3):
        with pytest.raises(ValueError, match="fault"), all_of.turn():
            raise ValueError("fault")
    with turns_taken(all_of, 2) as let_go:
        threading.Timer(0.1, let_go.set).start()
        assert 0.05 < _seconds(all_of) < LONG / 2


def _seconds(all_of: Turns) -> float:
    began = time.monotonic()
    with all_of.turn():
        return time.monotonic() - began


# -------------------------------------------------------------------------------------------------------- the desk


@dataclass(frozen=True, eq=False)
class Note(Message, wire="test.flare_post.note"):
    text: str
    filling: bytes = b""


class Site:
    """A site that notes what it is asked, and answers with a note."""

    largest = 2**23

    def __init__(self, folder: Path) -> None:
        self.folder = SimpleNamespace(path=folder)
        self.begun: SimpleQueue[bytes] = SimpleQueue()
        self.done: list[bytes] = []
        self.closed = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.filling = b""

    def respond(self, content: Buffer) -> Message:
        asked = bytes(content)
        self.begun.put(asked)
        assert self.go_on.wait(LONG)
        if asked == b"fault":
            raise ValueError("Mrs Miller has it")
        if asked == b"refuse":
            raise Refused("not here")
        self.done.append(asked)
        return Note(f"answer to {len(asked)} bytes: {asked[:20]!r}", self.filling)

    def decline(self, error: MedFedError) -> Message:
        return Note(f"declined: {error.cause}")

    def close(self) -> None:
        self.closed.set()


@dataclass
class Opened:
    site: Site
    desk: Desk
    coordinator: Office

    def ask(self, number: str, content: bytes) -> None:
        self.coordinator.post.send(FIRST, self.coordinator.post.letter(number, [content], FIRST))

    def answer(self) -> tuple[str, str]:
        """The number and the text of the next answer."""
        _, letter = self.coordinator.next()
        return letter.number, decode(letter.content, Note).text if letter.content else ""


@pytest.fixture
def opened(cells: dict[str, Cell], tmp_path: Path) -> Iterator[Opened]:
    site = Site(tmp_path)
    desk = Desk(cast(Any, site), cells[FIRST], SERVER)
    yield Opened(site, desk, office(cells, SERVER))
    site.go_on.set()
    desk.close()
    assert site.closed.is_set() and not desk._thread.is_alive()


def test_a_desk_answers_each_number_once_and_says_so_again_without_work(opened: Opened) -> None:
    opened.ask("1", b"what")
    first = opened.answer()
    assert first == ("1", "answer to 4 bytes: b'what'")
    opened.ask("1", b"what")
    assert opened.answer() == first
    opened.ask("2", b"and")
    assert opened.answer() == ("2", "answer to 3 bytes: b'and'")
    assert opened.site.done == [b"what", b"and"] and opened.coordinator.nothing_more()


def test_a_desk_at_work_takes_no_notice_of_the_same_letter(opened: Opened) -> None:
    opened.site.go_on.clear()
    opened.ask("1", b"what")
    opened.site.begun.get(timeout=LONG)
    opened.ask("1", b"what")
    opened.ask("1", b"what")
    time.sleep(A_WHILE / 3)
    opened.site.go_on.set()
    assert opened.answer()[0] == "1" and opened.coordinator.nothing_more()
    assert opened.site.done == [b"what"]


def test_a_late_copy_of_an_earlier_letter_is_dropped(opened: Opened) -> None:
    opened.ask("1", b"one")
    opened.answer()
    opened.site.go_on.clear()
    opened.ask("2", b"two")
    opened.site.begun.get(timeout=LONG)
    opened.site.begun.get(timeout=LONG)
    opened.ask("1", b"one")
    time.sleep(A_WHILE / 3)
    opened.site.go_on.set()
    assert opened.answer() == ("2", "answer to 3 bytes: b'two'")
    opened.ask("1", b"one")
    assert opened.coordinator.nothing_more() and opened.site.done == [b"one", b"two"]


def test_a_desk_answers_its_coordinator_only(opened: Opened, cells: dict[str, Cell]) -> None:
    stranger = office(cells, SECOND)
    stranger.post.send(FIRST, Letter("1", b"from a stranger"))
    assert stranger.nothing_more()
    opened.ask("1", b"mine")
    assert opened.answer()[0] == "1"
    assert opened.site.done == [b"mine"]


def test_only_the_newest_letter_is_answered_but_all_are_worked_on_in_order(opened: Opened) -> None:
    opened.site.go_on.clear()
    opened.ask("1", b"one")
    opened.site.begun.get(timeout=LONG)
    opened.ask("2", b"two")
    time.sleep(A_WHILE / 3)
    opened.site.go_on.set()
    assert opened.answer() == ("2", "answer to 3 bytes: b'two'")
    assert opened.coordinator.nothing_more() and opened.site.done == [b"one", b"two"]


def test_a_fault_gives_an_empty_letter_and_no_dead_desk(opened: Opened) -> None:
    opened.ask("1", b"fault")
    assert opened.answer() == ("1", "")
    opened.ask("2", b"refuse")
    assert opened.answer() == ("2", "declined: not here")
    opened.ask("3", b"what")
    assert opened.answer() == ("3", "answer to 4 bytes: b'what'")


def test_large_questions_and_answers_are_fetched(opened: Opened, tmp_path: Path, give_up: Callable[[], None]) -> None:
    opened.site.filling = os.urandom(2 * 2**20)
    opened.ask("1", bytes(3 * 2**20))
    _, letter = opened.coordinator.next()
    note = decode(fetched(opened.coordinator, FIRST, letter, tmp_path / "back"), Note)
    assert note.text.startswith("answer to 3145728 bytes") and note.filling == opened.site.filling
    assert not list((tmp_path / "spool").iterdir())
    opened.ask("2", b"next")
    opened.coordinator.next()
    give_up()
    with pytest.raises(CodecError, match="did not arrive"):
        fetched(opened.coordinator, FIRST, letter, tmp_path / "back")


def test_a_question_that_cannot_be_had_is_declined(opened: Opened, tmp_path: Path) -> None:
    opened.ask("1", bytes(Site.largest + 1))
    assert opened.answer() == ("1", "declined: a message is larger than there is reason for")
    (tmp_path / "spool").write_text("in the way")
    opened.ask("2", bytes(2 * 2**20))
    assert opened.answer()[1].startswith("declined: cannot write")


def test_closing_answers_what_is_on_the_desk_and_closes_the_site(opened: Opened) -> None:
    opened.site.go_on.clear()
    opened.ask("1", b"last")
    opened.site.begun.get(timeout=LONG)
    closing = threading.Thread(target=opened.desk.close)
    closing.start()
    time.sleep(A_WHILE / 3)
    assert closing.is_alive() and not opened.site.closed.is_set()
    opened.site.go_on.set()
    closing.join(LONG)
    assert opened.site.closed.is_set() and opened.answer()[0] == "1"


def test_closing_waits_for_no_message_that_does_not_come(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_STALLED", 10 * LONG)
    asked = asked_positions(monkeypatch, lost=1)
    opened.ask("1", bytes(2 * 2**20))
    until(lambda: bool(asked))
    began = time.monotonic()
    opened.desk.close()
    assert time.monotonic() - began < LONG / 2
    assert opened.answer()[1].startswith("declined: a message did not arrive") and not opened.site.done


# ----------------------------------------------------------------------------------------------------- the carrier


@dataclass
class Consortium:
    carrier: FlareCarrier
    abort: Signal
    first: Office
    second: Office

    def both(self) -> dict[str, ToSite]:
        return {"site-1": question(), "site-2": question()}

    def numbers(self) -> tuple[str, str]:
        """The numbers of the questions that came to the two."""
        return self.first.next()[1].number, self.second.next()[1].number


@pytest.fixture
def consortium(cells: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consortium:
    monkeypatch.setattr(carriers, "_AGAIN", LONG)
    return joined(cells, tmp_path / "spool", "site-1", "site-2")


def joined(cells: dict[str, Cell], spool: Path, *sites: str) -> Consortium:
    """The carrier of a job that was given to these sites."""
    clients = [Client(site, "token") for site in sites]
    engine = SimpleNamespace(get_clients=lambda: clients, get_cell=lambda: cells[SERVER])
    context = SimpleNamespace(get_engine=lambda: engine, get_job_id=lambda: "job")
    first, second, abort = office(cells, FIRST), office(cells, SECOND), Signal()
    return Consortium(FlareCarrier(cast(Any, context), abort, spool), abort, first, second)


def question(filling: bytes = b"") -> ToSite:
    return ToSite("run", "task", (), 0, Note("what", filling))


def test_answers_come_as_they_arrive(consortium: Consortium) -> None:
    assert consortium.carrier.sites == {"site-1", "site-2"}
    answers = consortium.carrier.carry(consortium.both(), LONG)
    origin, asked = consortium.first.next()
    assert origin == SERVER and asked.content == encode(question())
    assert consortium.second.next()[1].number == asked.number
    consortium.second.post.send(SERVER, Letter(asked.number, b"from 2"))
    assert next(answers) == ("site-2", b"from 2")
    consortium.first.post.send(SERVER, Letter(asked.number, b"from 1"))
    assert next(answers) == ("site-1", b"from 1")
    assert list(answers) == []


def test_a_site_that_has_no_client_is_left_out(consortium: Consortium) -> None:
    assert list(consortium.carrier.carry({"site-9": question()}, None)) == []


def test_large_questions_and_answers_of_sites_are_fetched(
    consortium: Consortium, tmp_path: Path, give_up: Callable[[], None]
) -> None:
    content, filled = odd_pieces(4), question(os.urandom(2 * 2**20))
    answers = consortium.carrier.carry({"site-1": filled, "site-2": filled}, LONG)
    for each in (consortium.first, consortium.second):
        _, asked = each.next()
        assert fetched(each, SERVER, asked, tmp_path) == encode(filled)
        each.post.send(SERVER, each.post.letter(asked.number, content, SERVER))
    assert dict(answers) == {"site-1": b"".join(content), "site-2": b"".join(content)}
    give_up()
    with pytest.raises(CodecError, match="did not arrive"):
        fetched(consortium.first, SERVER, asked, tmp_path)


def test_a_site_that_is_gone_is_left_out(consortium: Consortium) -> None:
    answers = consortium.carrier.carry(consortium.both(), None)
    number, _ = consortium.numbers()
    consortium.second.post.send(SERVER, Letter(number, b"from 2"))
    assert next(answers) == ("site-2", b"from 2")
    threading.Timer(0.1, setattr, (consortium.carrier, "gone", frozenset({"site-1"}))).start()
    assert list(answers) == []


def test_a_site_that_goes_while_it_sends_is_left_out(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_STALLED", 10 * LONG)
    monkeypatch.setattr(carriers, "_LOOK_UP", 2.0)
    asked = asked_positions(monkeypatch, lost=1)
    answers = consortium.carrier.carry({"site-1": question()}, None)
    number = consortium.first.next()[1].number
    consortium.first.post.send(SERVER, consortium.first.post.letter(number, odd_pieces(), SERVER))

    def go() -> None:
        until(lambda: bool(asked))
        consortium.carrier.gone = frozenset({"site-1"})

    going = threading.Thread(target=go)
    going.start()
    assert list(answers) == []
    going.join()


def test_who_is_late_is_left_out(consortium: Consortium) -> None:
    began = time.monotonic()
    answers = consortium.carrier.carry(consortium.both(), 0.4)
    number, _ = consortium.numbers()
    consortium.second.post.send(SERVER, Letter(number, b"from 2"))
    assert list(answers) == [("site-2", b"from 2")]
    assert 0.4 <= time.monotonic() - began < LONG / 2


def test_an_answer_in_time_is_not_late_because_another_took_long_to_use(consortium: Consortium) -> None:
    answers = consortium.carrier.carry(consortium.both(), 0.5)
    number, _ = consortium.numbers()
    consortium.first.post.send(SERVER, Letter(number, b"from 1"))
    assert next(answers) == ("site-1", b"from 1")
    consortium.second.post.send(SERVER, Letter(number, b"from 2"))
    time.sleep(0.7)
    assert list(answers) == [("site-2", b"from 2")]


def test_an_answer_to_an_earlier_question_is_dropped(consortium: Consortium) -> None:
    assert list(consortium.carrier.carry(consortium.both(), 0.1)) == []
    over, _ = consortium.numbers()
    answers = consortium.carrier.carry(consortium.both(), LONG)
    number, _ = consortium.numbers()
    assert number != over
    for each in (consortium.first, consortium.second):
        each.post.send(SERVER, Letter(over, b"too late"))
        time.sleep(A_WHILE / 6)
        each.post.send(SERVER, Letter(number, b"in time"))
    assert dict(answers) == {"site-1": b"in time", "site-2": b"in time"}


def test_an_answer_counts_for_the_cell_that_it_came_from(consortium: Consortium) -> None:
    answers = consortium.carrier.carry({"site-1": question()}, LONG)
    number = consortium.first.next()[1].number
    consortium.second.post.send(SERVER, Letter(number, b"forged"))
    time.sleep(A_WHILE / 3)
    consortium.first.post.send(SERVER, Letter(number, b"true"))
    consortium.first.post.send(SERVER, Letter(number, b"once more"))
    assert list(answers) == [("site-1", b"true")]


def test_an_answer_from_a_cell_outside_of_the_job_is_dropped(cells: dict[str, Cell], tmp_path: Path) -> None:
    job = joined(cells, tmp_path, "site-1")
    assert job.carrier.sites == {"site-1"}
    answers = job.carrier.carry(job.both(), LONG)
    number = job.first.next()[1].number
    job.second.post.send(SERVER, Letter(number, b"from a stranger"))
    time.sleep(A_WHILE / 3)
    job.first.post.send(SERVER, Letter(number, b"true"))
    assert list(answers) == [("site-1", b"true")]


def test_what_cannot_be_had_is_no_message(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch, give_up: Callable[[], None]
) -> None:
    give_up()
    monkeypatch.setattr(carriers, "_LEAST_LARGEST", 2**20)
    answers = consortium.carrier.carry(consortium.both(), LONG)
    number, _ = consortium.numbers()
    consortium.first.post.send(SERVER, Letter(number, b"", "a reference", 2**40))
    consortium.second.post.send(SERVER, Letter(number, b"", "a reference", 1000))
    assert dict(answers) == {"site-1": b"", "site-2": b""}


def test_a_spool_that_cannot_be_written_ends_the_exchange(consortium: Consortium, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    answers = consortium.carrier.carry({"site-1": question()}, LONG)
    number = consortium.first.next()[1].number
    consortium.first.post.send(SERVER, consortium.first.post.letter(number, odd_pieces(), SERVER))
    with pytest.raises(RunFolderError) as caught:
        list(answers)
    assert caught.value.where == str(tmp_path / "spool")


def test_an_aborted_job_ends_the_wait(consortium: Consortium) -> None:
    answers = consortium.carrier.carry(consortium.both(), None)
    threading.Timer(0.1, consortium.abort.trigger, (True,)).start()
    began = time.monotonic()
    with pytest.raises(MedFedError, match="the job was aborted"):
        next(answers)
    assert time.monotonic() - began < LONG / 2


def test_a_question_is_sent_again_until_it_is_answered(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "_AGAIN", 0.05)
    answers = consortium.carrier.carry(consortium.both(), LONG)
    consortium.second.post.send(SERVER, Letter(consortium.second.next()[1].number, b"at once"))

    def answer_the_third() -> None:
        (number,) = {consortium.first.next()[1].number for _ in range(3)}
        consortium.first.post.send(SERVER, Letter(number, b"at last"))

    answering = threading.Thread(target=answer_the_third)
    answering.start()
    assert list(answers) == [("site-2", b"at once"), ("site-1", b"at last")]
    answering.join()
    time.sleep(A_WHILE / 3)
    while not consortium.second.came.empty():
        consortium.second.next()
    assert consortium.second.nothing_more()
