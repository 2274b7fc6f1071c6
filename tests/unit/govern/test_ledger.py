"""Writing: what lands in the files, what a stop leaves behind, and what a failing disk does."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.codec import decode, encode
from medfed.core.errors import LedgerError, RefusalReason, Refused, UserError
from medfed.core.steps import Release
from medfed.govern import lines as lines_module
from medfed.govern.chain import follow_ledger
from medfed.govern.entries import (
    ApprovalEntry,
    ClosedEntry,
    DecisionEntry,
    Entry,
    FailureEntry,
    OpenedEntry,
    PolicyEntry,
    ProposalEntry,
    Recorded,
    RefusalEntry,
    ReleaseEntry,
    RepeatEntry,
    RequestEntry,
    ResumedEntry,
    WitnessEntry,
    decode_entry,
    encode_entry,
)
from medfed.govern.heads import Head
from medfed.govern.keys import SigningKey, load_or_create_key
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.govern.merkle import leaf_hash, root_of
from medfed.govern.verify import verify_ledgers

KEY = SigningKey.generate()
OPENED = OpenedEntry("run", "ab" * 32, "0.1")
RELEASE = ReleaseEntry("run", 1, 2, "fedavg.train", Release.SUM, "cd" * 32, ("delta float32[14]",), 184, "clear")


@contextmanager
def opened(folder: Path, key: SigningKey = KEY, *, durable: bool = False) -> Iterator[Ledger]:
    """The ledger of party ``a``."""
    with LedgerFolder.open(folder, key, durable=durable) as ledgers:
        yield ledgers.ledger("a")


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def entries(folder: Path, party: str = "a") -> list[Entry]:
    return [decode_entry(line.rstrip(b"\n")).entry for line in lines(folder / f"{party}.jsonl")]


def test_the_lines_are_canonical_json_chained_by_leaf_hashes(tmp_path: Path) -> None:
    with opened(tmp_path, durable=True) as ledger:
        assert [ledger.append(OPENED), ledger.append(RELEASE)] == [0, 1]
        head = ledger.sign_head(1)
    first, second = lines(tmp_path / "a.jsonl")
    written = json.loads(second)
    assert written.pop("previous") == leaf_hash(first[:-1]).hex()
    assert datetime.fromisoformat(written.pop("time")).tzinfo == UTC
    assert written == {
        "index": 1,
        "kind": "release",
        "run": "run",
        "round": 1,
        "call": 2,
        "step": "fedavg.train",
        "release": "sum",
        "digest": "cd" * 32,
        "shapes": ["delta float32[14]"],
        "bytes": 184,
        "protection": "clear",
    }
    assert second == json.dumps(json.loads(second), sort_keys=True, separators=(",", ":")).encode() + b"\n"
    assert (head.size, head.round) == (2, 1)
    assert head.root == root_of([leaf_hash(first[:-1]), leaf_hash(second[:-1])]).hex()
    assert json.loads((tmp_path / "a.heads.jsonl").read_text())["root"] == head.root


text = st.text(max_size=20) | st.sampled_from(["\ud800", "\n", "\u2028", 'é"\\'])
number = st.integers(0, 2**63)
ENTRIES = st.one_of(
    st.builds(OpenedEntry, text, text, text),
    st.builds(ApprovalEntry, text, text, text),
    st.builds(PolicyEntry, text, text),
    st.builds(
        ReleaseEntry,
        text,
        number,
        number,
        text,
        st.sampled_from(Release),
        text,
        st.lists(text, max_size=3).map(tuple),
        number,
        text,
    ),
    st.builds(RefusalEntry, text, number, number, text, text, text),
    st.builds(FailureEntry, text, number, number, text, text, text),
    st.builds(RepeatEntry, text, number, number, text, text),
    st.builds(WitnessEntry, text, number, text, number, text),
    st.builds(ResumedEntry, number),
    st.builds(ClosedEntry, text, text),
    st.builds(ProposalEntry, text, text, text, text, text),
    st.builds(DecisionEntry, text, text, text, text, text, text),
    st.builds(RequestEntry, text, number, number, text, text),
)


@given(ENTRIES, number, text)
def test_an_entry_is_read_as_it_was_written(entry: Entry, index: int, previous: str) -> None:
    recorded = Recorded(index, "2025-01-01T00:00:00+00:00", previous, entry)
    line = encode_entry(recorded)
    assert b"\n" not in line
    assert decode_entry(line) == recorded


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"cut":0,"index":0,"kind":"resumed","previous":"","time":"t"} ',
        b'{"cut":0.0,"index":0,"kind":"resumed","previous":"","time":"t"}',
        b'{"cut":true,"index":0,"kind":"resumed","previous":"","time":"t"}',
        b'{"cut":0,"cut":0,"index":0,"kind":"resumed","previous":"","time":"t"}',
        b'{"cut":0,"index":0,"kind":"renamed","previous":"","time":"t"}',
        b'{"cut":0,"index":0,"kind":"resumed","more":1,"previous":"","time":"t"}',
        b'{"index":0,"kind":"resumed","previous":"","time":"t"}',
        b'{"cut":0,"kind":"resumed","previous":"","time":"t"}',
        b'{"cut":0,"index":0,"kind":[],"previous":"","time":"t"}',
    ],
)
def test_no_other_bytes_are_an_entry(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_entry(line)


def test_a_head_is_a_message_bound_to_its_party() -> None:
    head = Head.sign("a", 3, b"\1" * 32, 2, KEY)
    assert decode(encode(head), Head) == head
    assert head.verifies("a", KEY.verify_key)
    assert not head.verifies("b", KEY.verify_key)
    assert not head.verifies("a", SigningKey.generate().verify_key)
    assert not replace(head, signature=head.signature.upper()).verifies("a", KEY.verify_key)
    assert not replace(head, signature="no hex").verifies("a", KEY.verify_key)
    assert not replace(head, round=3).verifies("a", KEY.verify_key)


def test_going_on_continues_the_chain_and_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        ledger.sign_head(0)
        ledger.append(RELEASE)
    with opened(tmp_path) as ledger:
        assert ledger.size == 3
        ledger.sign_head(7)
        assert ledger.close("run", "done").round == 7
    assert entries(tmp_path) == [OPENED, RELEASE, ResumedEntry(0), ClosedEntry("run", "done")]
    (verified,) = verify_ledgers(tmp_path, KEY.verify_key, finished=True)
    assert (verified.entries, verified.signed, verified.heads, verified.run) == (4, 4, 3, "run")


def test_a_closed_ledger_that_is_opened_again_stays_closed_until_it_is_added_to(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        ledger.close("run", "done")
    for _ in range(2):
        with opened(tmp_path) as ledger:
            assert ledger.consistency(1, 2)
        (verified,) = verify_ledgers(tmp_path, KEY.verify_key, finished=True)
        assert (verified.entries, verified.signed) == (2, 2)
    with opened(tmp_path) as ledger:
        assert ledger.append(RELEASE) == 3
        ledger.close("run", "done")
    assert entries(tmp_path)[2:] == [ResumedEntry(0), RELEASE, ClosedEntry("run", "done")]
    verify_ledgers(tmp_path, KEY.verify_key, finished=True)


def test_a_release_whose_process_ended_before_it_was_kept_is_recorded_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        ledger.release(RELEASE)
        ledger.sign_head(0)
    with opened(tmp_path) as ledger:
        ledger.append(WitnessEntry("run", 1, "b", 3, "ab" * 32))
        ledger.release(RELEASE)
        ledger.release(replace(RELEASE, call=3))
        ledger.release(RELEASE)
    released = [entry.call for entry in entries(tmp_path) if isinstance(entry, ReleaseEntry)]
    assert released == [2, 3, 2]


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(1, 400), head_cut=st.integers(0, 150))
def test_a_torn_last_line_is_cut_off_and_recorded(
    tmp_path_factory: pytest.TempPathFactory, cut: int, head_cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    with opened(folder) as ledger:
        ledger.append(OPENED)
        ledger.sign_head(0)
        ledger.append(RELEASE)
    *_, last = lines(folder / "a.jsonl")
    torn = last[: min(cut, len(last) - 1)]
    with (folder / "a.jsonl").open("ab") as file:
        file.write(torn)
    with (folder / "a.heads.jsonl").open("ab") as file:
        file.write(b"{" * head_cut)
    with pytest.raises(LedgerError, match="breaks off"):
        verify_ledgers(folder, KEY.verify_key, finished=False)
    with opened(folder) as ledger:
        ledger.close("run", "done")
    assert entries(folder) == [
        OPENED,
        RELEASE,
        ResumedEntry(len(torn) + head_cut),
        ClosedEntry("run", "done"),
    ]
    verify_ledgers(folder, KEY.verify_key, finished=True)


def test_a_kill_between_any_two_bytes_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as ledger:
        ledger.append(OPENED)
        ledger.append(RELEASE)
    content = (tmp_path / "whole" / "a.jsonl").read_bytes()
    for length in range(0, len(content) + 1, 7):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(content[:length])
        with opened(folder) as ledger:
            ledger.append(RELEASE)
            ledger.sign_head(1)
        verify_ledgers(folder, KEY.verify_key, finished=False)


def test_a_tampered_ledger_is_not_continued(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        ledger.append(RELEASE)
        ledger.sign_head(1)
    path = tmp_path / "a.jsonl"
    before = path.read_bytes().replace(b'"bytes":184', b'"bytes":183')
    path.write_bytes(before)
    for key in (KEY, SigningKey.generate()):
        with pytest.raises(LedgerError), opened(tmp_path, key):
            pass
    assert path.read_bytes() == before


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        with pytest.raises(Refused, match="in use") as caught:
            LedgerFolder.open(tmp_path, KEY, durable=False)
        assert caught.value.reason is RefusalReason.LEDGER
    with LedgerFolder.open(tmp_path, KEY, durable=False) as ledgers:
        ledgers.ledger("a")
        with pytest.raises(Refused, match="in use"):
            ledgers.ledger("a")
    assert entries(tmp_path) == [OPENED, ResumedEntry(0)]


def test_workers_hold_the_folder_until_the_last_of_them_ended(tmp_path: Path) -> None:
    ledgers = LedgerFolder.open(tmp_path, KEY, durable=False)
    ledgers.ledger("coordinator").append(OPENED)
    waiting, go_on = os.pipe()
    workers = [os.fork() or _work(ledgers, party, waiting, go_on) for party in ("a", "b")]
    ledgers.close()
    os.close(waiting)
    with pytest.raises(Refused, match="in use"):
        LedgerFolder.open(tmp_path, KEY, durable=False)
    os.kill(workers[0], signal.SIGKILL)
    os.waitpid(workers[0], 0)
    with pytest.raises(Refused, match="in use"):
        LedgerFolder.open(tmp_path, KEY, durable=False)
    os.close(go_on)
    assert os.waitpid(workers[1], 0)[1] == 0
    with LedgerFolder.open(tmp_path, KEY, durable=False) as ledgers:
        for party in ("a", "b", "coordinator"):
            ledgers.ledger(party).close("run", "done")
    assert entries(tmp_path, "b") == [OPENED, RELEASE, ResumedEntry(0), ClosedEntry("run", "done")]
    assert len(verify_ledgers(tmp_path, KEY.verify_key, finished=True)) == 3


def _work(ledgers: LedgerFolder, party: str, waiting: int, go_on: int) -> int:
    """A forked worker: it writes its ledger, and then lives until the other end of the pipe is closed."""
    ledger = ledgers.ledger(party)
    ledger.append(OPENED)
    os.close(go_on)
    os.read(waiting, 1)
    ledger.append(RELEASE)
    os._exit(0)


def test_thousands_of_ledgers_need_few_descriptors(tmp_path: Path) -> None:
    script = [sys.executable, "-c", CROWD, str(tmp_path)]
    assert subprocess.run(script, check=True, capture_output=True, text=True).stdout.split() == ["2000", "True"]
    verified = verify_ledgers(tmp_path, load_or_create_key(tmp_path / "keys", "a").verify_key, finished=True)
    assert [(v.entries, v.signed, v.heads) for v in verified] == [(5, 5, 2)] * 2000


CROWD = """
import os, resource, sys
from pathlib import Path
from medfed.govern.entries import OpenedEntry, RepeatEntry
from medfed.govern.keys import load_or_create_key
from medfed.govern.ledger import LedgerFolder
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
folder = Path(sys.argv[1])
with LedgerFolder.open(folder, load_or_create_key(folder / "keys", "a"), durable=False) as ledgers:
    crowd = [ledgers.ledger(f"site-{number}") for number in range(2000)]
    for ledger in crowd:
        ledger.append(OpenedEntry("run", "ab", "0.1"))
    for call in range(3):
        for ledger in crowd:
            ledger.append(RepeatEntry("run", 1, call, "step", "cd"))
        if call == 1:
            for ledger in crowd:
                ledger.sign_head(1)
    for ledger in crowd:
        ledger.close("run", "done")
    print(len(crowd), len(os.listdir("/proc/self/fd")) < 150)
"""


def test_a_ledger_has_acted_until_it_signs(tmp_path: Path) -> None:
    head = Head.sign("b", 1, b"\1" * 32, 1, KEY)
    with opened(tmp_path) as ledger:
        assert not ledger.acted
        ledger.append(OPENED)
        assert ledger.acted
        ledger.witness(head, "b", "run")
        assert ledger.acted
        ledger.sign_head(0)
        assert not ledger.acted
        ledger.witness(head, "b", "run")
        assert not ledger.acted
        ledger.append(RELEASE)
        assert ledger.acted
    with opened(tmp_path) as ledger:
        assert ledger.acted


OTHER_WITNESSED = WitnessEntry("run", 1, "b", 1, "cd")


@pytest.mark.parametrize(
    ("after", "acted"), [([], False), ([OTHER_WITNESSED], False), ([RELEASE], True), ([RELEASE, OTHER_WITNESSED], True)]
)
def test_whether_a_ledger_has_acted_is_known_from_its_files(tmp_path: Path, after: list[Entry], acted: bool) -> None:
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        ledger.sign_head(0)
        for entry in after:
            ledger.append(entry)
    assert follow_ledger(tmp_path, "a", KEY.verify_key).acted is acted


@pytest.mark.parametrize("change", ["shortened", "removed"])
def test_a_ledger_that_lost_lines_while_it_was_written_is_not_written_on(tmp_path: Path, change: str) -> None:
    with LedgerFolder.open(tmp_path, KEY, durable=False) as ledgers:
        ledger = ledgers.ledger("a")
        ledger.append(OPENED)
        for number in range(400):
            ledgers.ledger(f"other-{number}").append(OPENED)
        path = tmp_path / "a.jsonl"
        if change == "removed":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(Refused, match="nothing leaves"):
            ledger.append(RELEASE)
        assert ledger.size == 1
        assert path.exists() is (change == "shortened")


@pytest.mark.parametrize("party", ["", ".", "..", ".a", "a/b", "../a", "a.heads"])
def test_impossible_party_names_are_refused(tmp_path: Path, party: str) -> None:
    with LedgerFolder.open(tmp_path, KEY, durable=False) as ledgers, pytest.raises(UserError):
        ledgers.ledger(party)


def test_a_full_disk_refuses_and_leaves_no_half_line(tmp_path: Path) -> None:
    """The kernel's limit on a file's size stops the write in the middle of a line, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        size = (tmp_path / "a.jsonl").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
            for _ in range(2):
                with pytest.raises(Refused, match="nothing leaves") as caught:
                    ledger.append(RELEASE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert caught.value.reason is RefusalReason.LEDGER
        assert caught.value.exit_status == 3
        assert caught.value.remedy
        assert (tmp_path / "a.jsonl").stat().st_size == size
        assert ledger.append(RELEASE) == 1
        ledger.close("run", "done")
    assert entries(tmp_path) == [OPENED, RELEASE, ClosedEntry("run", "done")]
    verify_ledgers(tmp_path, KEY.verify_key, finished=True)


def test_half_a_line_that_could_not_be_cut_at_once_is_cut_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.EIO, "Input/output error")
        return written(descriptor, data[:100])

    def stuck(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
        with monkeypatch.context() as failing:
            failing.setattr(os, "write", half)
            failing.setattr(os, "ftruncate", stuck)
            for _ in range(2):
                with pytest.raises(Refused):
                    ledger.append(RELEASE)
        assert not (tmp_path / "a.jsonl").read_bytes().endswith(b"\n")
        ledger.append(RELEASE)
        ledger.close("run", "done")
    verify_ledgers(tmp_path, KEY.verify_key, finished=True)


def test_an_entry_that_is_not_durable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def failing(descriptor: int) -> None:
        synced.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path, durable=True) as ledger, monkeypatch.context() as context:
        ledger.append(OPENED)
        ledger.sign_head(0)
        before = [(tmp_path / name).read_bytes() for name in ("a.jsonl", "a.heads.jsonl")]
        context.setattr(os, "fsync", failing)
        with pytest.raises(Refused):
            ledger.append(RELEASE)
        with pytest.raises(Refused):
            ledger.sign_head(1)
    assert len(synced) == 2
    assert [(tmp_path / name).read_bytes() for name in ("a.jsonl", "a.heads.jsonl")] == before


def test_a_new_file_whose_name_is_not_durable_is_refused_until_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def failing(folder: Path) -> None:
        folders.append(folder)
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path, durable=True) as ledger:
        with monkeypatch.context() as context:
            context.setattr(lines_module, "sync_folder", failing)
            for _ in range(2):
                with pytest.raises(Refused):
                    ledger.append(OPENED)
        assert folders == [tmp_path] * 2
        assert ledger.append(OPENED) == 0
    assert entries(tmp_path) == [OPENED]


def test_a_folder_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="nothing leaves"):
        LedgerFolder.open(tmp_path / "file", KEY, durable=False)
    with opened(tmp_path) as ledger:
        ledger.append(OPENED)
    with pytest.raises(Refused, match="nothing leaves"):
        ledger.append(OPENED)


WRITER = """
import sys
from pathlib import Path
from medfed.govern.entries import RepeatEntry
from medfed.govern.keys import load_or_create_key
from medfed.govern.ledger import LedgerFolder
folder = Path(sys.argv[1])
ledger = LedgerFolder.open(folder, load_or_create_key(folder / "keys", "a"), durable=False).ledger("a")
for number in range(10**9):
    ledger.append(RepeatEntry("run", number, 0, "x" * 3000, "d"))
    if number % 5 == 0:
        ledger.sign_head(number)
    print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 333])
def test_what_append_returned_for_survives_sigkill(tmp_path: Path, acknowledged: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            writer.stdout.readline()
        writer.kill()
    key = load_or_create_key(tmp_path / "keys", "a")
    with opened(tmp_path, key) as ledger:
        ledger.close("run", "done")
    rounds = [entry.round for entry in entries(tmp_path) if isinstance(entry, RepeatEntry)]
    assert rounds == list(range(len(rounds)))
    assert len(rounds) >= acknowledged
    verify_ledgers(tmp_path, key.verify_key, finished=True)
