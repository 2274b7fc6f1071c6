"""The store below the memories: its file, what is shared in RAM, and several processes at once."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_parts import Diary, Mood, Part, Pong, request

from medfed.core.codec import encode
from medfed.core.errors import DataError, MedFedError, RunFolderError
from medfed.core.messages import Message
from medfed.core.wire import Reply
from medfed.data.findings import NONE
from medfed.data.kinds import Kind
from medfed.data.table import SiteTable
from medfed.engine.cohort import check_cohort
from medfed.engine.kept import KeptMessages
from medfed.engine.store import RunStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[RunStore]:
    with RunStore.open(path) as opened:
        yield opened


def record(
    store: RunStore, site: str, *kept: Message, base: int = 0, settled: int = 0, body: Message | None = None
) -> Reply:
    memory = store.site(site)
    memory.settle(settled)
    return memory.record(request(site=site, base=base), body or Pong(site), kept, 10)


def vector(megabytes: float, value: float = 1.0) -> Part:
    return Part(np.full(int(megabytes * 2**18), value, np.float32), np.zeros(1), 1)


def test_sites_are_apart(store: RunStore) -> None:
    record(store, "north", Diary(1))
    record(store, "south", Diary(2))
    record(store, "south", Diary(3), base=1)
    assert [store.site(name).newest(Diary).entry for name in ("north", "south")] == [1, 3]
    assert [store.site(name).requests for name in ("north", "south", "east")] == [1, 2, 0]
    assert store.site("north") is store.site("north")


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_nobody_else_may_read_any_of_its_files(path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        with RunStore.open(path) as store:
            record(store, "north", Diary(1))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == {"store": 0o600, "store-wal": 0o600, "store-shm": 0o600}
    assert [file.name for file in path.parent.iterdir()] == ["store"]


def large_files(path: Path) -> set[str]:
    return {file.name for file in path.parent.glob("store-large/*/*")}


def test_large_contents_are_files_that_nobody_else_may_read(path: Path, store: RunStore) -> None:
    record(store, "north", vector(0.2), body=vector(2))
    record(store, "north", vector(1), Diary(1), base=1, body=Pong("small"))
    assert large_files(path) == {"1", "2.test.engine.part"}
    assert path.stat().st_size + path.with_name("store-wal").stat().st_size < 2**20
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("store-large/*/*")} == {0o600}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in path.parent.glob("store-large/*")} == {0o700}
    reply = store.site("north").stored_reply(request())
    assert reply is not None
    assert encode(reply.body) == encode(vector(2))
    assert encode(store.site("north").at(2)[Part]) == encode(vector(1))
    record(store, "north", base=2, settled=2)
    assert large_files(path) == {"2.test.engine.part"}
    record(store, "north", vector(0.1), base=3, settled=3)
    record(store, "north", base=4, settled=4)
    assert large_files(path) == set()


def test_files_go_with_their_transaction(path: Path, store: RunStore) -> None:
    record(store, "north", body=vector(1))
    with pytest.raises(KeyError), store.transaction():
        record(store, "north", vector(1), base=1, settled=1)
        record(store, "south", body=vector(1))
        assert len(large_files(path)) == 2
        raise KeyError
    assert large_files(path) == {"1"}
    assert store.site("north").stored_reply(request()) is not None


def test_a_private_store_makes_no_files() -> None:
    with RunStore.open(None) as store:
        record(store, "north", vector(1), body=vector(2))
        assert encode(store.site("north").at(1)[Part]) == encode(vector(1))


@pytest.mark.parametrize("harm", ["removed", "emptied", "shortened"])
def test_a_large_file_that_was_harmed_is_said_to_be_damaged(path: Path, store: RunStore, harm: str) -> None:
    record(store, "north", body=vector(1))
    (file,) = path.parent.glob("store-large/*/*")
    if harm == "removed":
        file.unlink()
    else:
        os.truncate(file, 0 if harm == "emptied" else 1000)
    with pytest.raises(RunFolderError, match="damaged"):
        store.site("north").stored_reply(request())


def test_an_equal_message_is_one_object_for_all_sites_and_requests(store: RunStore) -> None:
    for site in ("north", "south"):
        record(store, site, vector(1), Diary(1))
        record(store, site, Diary(2), base=1, settled=1)
    first = store.site("north").at(2)[Part]
    assert store.site("north").at(1)[Part] is first
    assert store.site("south").at(2)[Part] is first
    assert store.site("south").newest(Part) is first
    assert store.site("south").at(1)[Diary] is not store.site("south").at(2)[Diary]
    assert isinstance(first, Part)
    assert not first.values.flags.writeable


def test_what_is_not_remembered_is_read_again(path: Path) -> None:
    with RunStore.open(path) as store:
        record(store, "north", vector(1, 3.0), mood := Mood(4))
    with RunStore.open(path) as store:
        kept = store.site("north").at(1)
        assert encode(kept[Part]) == encode(vector(1, 3.0))
        assert encode(kept[Mood]) == encode(mood)


def test_remembered_messages_are_the_ones_used_last_within_the_bound() -> None:
    encoded = {number: encode(Diary(number)) for number in range(10)}
    size = len(encoded[0])
    kept, read = KeptMessages(bound=3 * size, largest=size), []

    def get(number: int) -> Message:
        def fetch() -> bytes:
            read.append(number)
            return encoded[number]

        return kept.get(bytes([number]), fetch)

    first = get(0)
    for number in (1, 2, 0, 3):
        get(number)
    assert read == [0, 1, 2, 3]
    assert get(0) is first
    get(1)
    assert read == [0, 1, 2, 3, 1]
    kept.add(bytes([9]), encoded[9])
    get(9)
    assert 9 not in read


def test_a_large_message_does_not_push_the_small_ones_out() -> None:
    small, large = encode(Diary(1)), encode(vector(1))
    kept, read = KeptMessages(bound=2 * len(small), largest=len(small)), []

    def fetch(encoded: bytes) -> bytes:
        read.append(len(encoded))
        return encoded

    first = kept.get(b"small", lambda: fetch(small))
    for _ in range(2):
        assert encode(kept.get(b"large", lambda: fetch(large))) == large
    kept.add(b"other", large)
    assert kept.get(b"small", lambda: fetch(small)) is first
    assert read == [len(small), len(large), len(large)]


def test_replies_are_not_held_in_the_process(store: RunStore) -> None:
    tracemalloc.start()
    try:
        for number in range(40):
            record(store, f"site-{number}", body=vector(1))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2**20
    reply = store.site("site-7").stored_reply(request(site="site-7"))
    assert reply is not None
    assert encode(reply.body) == encode(vector(1))


def test_the_file_stays_at_the_size_of_what_counts(path: Path, store: RunStore) -> None:
    body, sizes = Part(np.ones(2826, np.float32), np.zeros(1), 1), []
    reader = sqlite3.connect(path)
    for number in range(200):
        with store.transaction():
            for site in range(20):
                record(store, f"site-{site}", vector_of(number), base=number, settled=number, body=body)
        if number % 50 == 49:
            reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(path.stat().st_size)
    reader.close()
    most = 20 * 9 * (len(encode(body)) + len(encode(vector_of(0))))  # the last, and eight folded ones at most
    assert sizes[-1] < 1.6 * most
    assert sizes[-1] < 1.1 * sizes[0]


def vector_of(number: int) -> Part:
    return Part(np.full(1000, number, np.float32), np.zeros(1), 1)


def test_a_transaction_that_fails_leaves_nothing_behind(store: RunStore) -> None:
    record(store, "north", Diary(1))
    with pytest.raises(KeyError), store.transaction():
        record(store, "north", Diary(2), base=1, settled=1)
        record(store, "south", Diary(3))
        raise KeyError
    assert store.site("north").newest(Diary).entry == 1
    assert (store.site("north").requests, store.site("south").requests) == (1, 0)
    assert store.site("north").stored_reply(request()) is not None
    with store.transaction(), store.transaction():
        assert record(store, "south", Diary(4)).version == 1
    assert store.site("south").newest(Diary).entry == 4


class FullDisk:
    """No file of this process may grow beyond some bytes, as on a full disk."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __enter__(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limits[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
        signal.signal(signal.SIGXFSZ, self.handler)


@pytest.mark.parametrize("megabytes", [0.2, 1], ids=["in the database", "in a file"])
def test_a_failed_write_leaves_the_memory_as_it_was(path: Path, store: RunStore, megabytes: float) -> None:
    record(store, "north", Diary(1))
    with FullDisk(2**17), pytest.raises(RunFolderError, match="cannot write") as caught:
        record(store, "north", Diary(2), base=1, body=vector(megabytes))
    assert caught.value.remedy
    assert caught.value.where.startswith(str(path))
    assert large_files(path) == set()
    memory = store.site("north")
    assert memory.newest(Diary).entry == 1
    assert (memory.requests, memory.released_bytes) == (1, 10)
    assert memory.stored_reply(request(base=1)) is None
    assert record(store, "north", Diary(3), base=1, body=vector(1)).version == 2
    assert memory.newest(Diary).entry == 3


def test_a_part_that_cannot_be_written_fails_the_whole_transaction(path: Path, store: RunStore) -> None:
    record(store, "north", Diary(1))
    with FullDisk(2**17), pytest.raises(RunFolderError, match="cannot write"), store.transaction():
        record(store, "north", Diary(2), base=1, body=vector(1))
        for number in range(200):
            record(store, f"south-{number}", body=vector(0.2))
        record(store, "east", Diary(2))
    assert [store.site(name).requests for name in ("north", "south-0", "east")] == [1, 0, 0]
    assert store.site("north").newest(Diary).entry == 1
    assert large_files(path) == set()
    record(store, "east", Diary(5))
    assert store.site("east").newest(Diary).entry == 5


def test_a_file_of_something_else_is_refused_with_a_remedy(path: Path) -> None:
    path.write_bytes(b"no database, but long enough for one's header " * 40)
    with pytest.raises(RunFolderError, match="damaged") as caught:
        RunStore.open(path)
    assert caught.value.remedy
    assert path.read_bytes().startswith(b"no database")
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(RunFolderError, match="not of this version"):
        RunStore.open(path)


def test_a_damaged_file_is_said_to_be(path: Path) -> None:
    with RunStore.open(path) as store:
        record(store, "north", Diary(1), body=vector(0.2))
    content = bytearray(path.read_bytes())
    content[8192:] = random.Random(0).randbytes(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="damaged"), RunStore.open(path) as store:
        store.site("north").at(1)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "store", tmp_path):
        with pytest.raises(RunFolderError, match="cannot write") as caught:
            RunStore.open(place)
        assert caught.value.remedy


def test_a_closed_store_writes_nothing(path: Path) -> None:
    store = RunStore.open(path)
    store.close()
    store.close()
    with pytest.raises(MedFedError):
        record(store, "north")


def test_a_process_forked_with_the_file_open_is_stopped(path: Path, store: RunStore) -> None:
    record(store, "north")
    child = os.fork()
    if child == 0:
        stopped = 0
        for attempt in (lambda: RunStore.open(path), lambda: record(store, "south")):
            try:
                attempt()
            except RuntimeError:
                stopped += 1
        store.close()
        os._exit(stopped)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    record(store, "north", base=1)
    assert store.site("north").requests == 2


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engine_parts import Diary, Ping, Pong, request
from medfed.engine.store import RunStore
path, prefix, rounds = Path(sys.argv[1]), sys.argv[3], int(sys.argv[4])
store = RunStore.open(path)
for number in range(rounds):
    with store.transaction():
        for name in (prefix + "-a", prefix + "-b"):
            memory = store.site(name)
            memory.settle(number - 1)
            kept = memory.at(number)
            assert not kept or kept[Diary].entry == number - 1
            memory.record(request(site=name, base=number), Pong("x" * 20_000), (Diary(number),), 10)
    print(number, flush=True)
"""


def writer(path: Path, prefix: str, rounds: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent), prefix, str(rounds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def test_processes_write_side_by_side_into_a_file_that_all_of_them_begin(path: Path) -> None:
    writers = [writer(path, prefix, 150) for prefix in ("one", "two", "three")]
    for process in writers:
        process.communicate()
    assert [process.returncode for process in writers] == [0, 0, 0]
    with RunStore.open(path) as store:
        for site in (f"{prefix}-{letter}" for prefix in ("one", "two", "three") for letter in "ab"):
            memory = store.site(site)
            assert (memory.requests, memory.released_bytes) == (150, 1500)
            assert memory.newest(Diary).entry == 149
    assert integrity(path) == "ok"


@pytest.mark.parametrize("acknowledged", [1, 25, 180])
def test_what_a_transaction_committed_survives_sigkill(path: Path, acknowledged: int) -> None:
    with writer(path, "one", 10**9) as killed:
        assert killed.stdout is not None
        for _ in range(acknowledged):
            killed.stdout.readline()
        killed.kill()
    with RunStore.open(path) as store:
        one, other = store.site("one-a"), store.site("one-b")
        assert one.requests == other.requests >= acknowledged
        assert one.newest(Diary).entry == other.newest(Diary).entry == one.requests - 1
        record(store, "one-a", Diary(0), base=one.requests, settled=one.requests)
    assert integrity(path) == "ok"


@pytest.mark.parametrize("body", [Pong("small"), vector(1)], ids=["in the database", "in a file"])
def test_two_that_handle_one_site_are_told_apart(path: Path, body: Message) -> None:
    with RunStore.open(path) as store, RunStore.open(path) as other:
        assert (store.site("north").requests, other.site("north").requests) == (0, 0)
        record(store, "north", Diary(1), body=body)
        with pytest.raises(RunFolderError, match="another process"):
            record(other, "north", Diary(2), body=vector(1, 2.0) if isinstance(body, Part) else Pong("other"))
    with RunStore.open(path) as store:
        reply = store.site("north").stored_reply(request())
        assert reply is not None
        assert encode(reply.body) == encode(body)
        assert store.site("north").newest(Diary).entry == 1


def integrity(path: Path) -> str:
    database = sqlite3.connect(path)
    ((found,),) = database.execute("PRAGMA integrity_check")
    database.close()
    return str(found)


def table(site: str, **changed: object) -> SiteTable:
    first = SiteTable(
        site,
        {"age": Kind.CONTINUOUS},
        {"age": np.array([61.0, 48.0, 70.0])},
        {},
        np.array(["a", "b", "c"], dtype=object),
        np.array(["no", "yes", "no"], dtype=object),
        ("no", "yes"),
        np.array([0, 0, 1], np.int8),
        NONE,
    )
    return replace(first, **changed)


CHANGES = {
    "rows": {"columns": {"age": np.array([61.0, 48.0, 71.0])}},
    "patients": {"ids": np.array(["a", "b", "d"], dtype=object)},
    "labels": {"targets": np.array(["no", "yes", "yes"], dtype=object)},
    "splits": {"split": np.array([0, 1, 1], np.int8)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_rows_than_when_the_run_began_are_refused(path: Path, what: str) -> None:
    with RunStore.open(path) as store, store.transaction():
        check_cohort(store, table("north"))
        check_cohort(store, table("south"))
    with RunStore.open(path) as store:
        check_cohort(store, table("north"))
        with pytest.raises(DataError, match="not those with which") as caught:
            check_cohort(store, table("north", **CHANGES[what]))
        check_cohort(store, table("south"))
    assert caught.value.where == "north"


def test_the_digest_of_the_rows_has_a_key_of_its_site(path: Path) -> None:
    with RunStore.open(path) as store:
        check_cohort(store, table("north"))
        check_cohort(store, table("south"))
        north, south = store.cohort("north"), store.cohort("south")
    assert north is not None
    assert south is not None
    assert len(north) == len(south) == 64
    assert north[:32] != south[:32]
    assert north[32:] != south[32:]
