"""Writing: what lands in the files, what a stop leaves behind, and what a failing disk does."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.codec import decode, encode
from medfed.core.errors import LedgerError, RefusalReason, Refused, UserError
from medfed.core.steps import Release
from medfed.govern.entries import (
    ApprovalEntry,
    ClosedEntry,
    Entry,
    FailureEntry,
    OpenedEntry,
    PolicyEntry,
    Recorded,
    RefusalEntry,
    ReleaseEntry,
    RepeatEntry,
    ResumedEntry,
    WitnessEntry,
    decode_entry,
    encode_entry,
)
from medfed.govern.heads import Head
from medfed.govern.keys import SigningKey, load_or_create_key
from medfed.govern.ledger import Ledger
from medfed.govern.merkle import leaf_hash, root_of
from medfed.govern.verify import verify_ledgers

KEY = SigningKey.generate()
OPENED = OpenedEntry("run", "ab" * 32, "0.1")
RELEASE = ReleaseEntry("run", 1, 2, "fedavg.train", Release.SUM, "cd" * 32, ("delta float32[14]",), 184, "clear")


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def entries(folder: Path, party: str = "a") -> list[Entry]:
    return [decode_entry(line.rstrip(b"\n")).entry for line in lines(folder / f"{party}.jsonl")]


def test_the_lines_are_canonical_json_chained_by_leaf_hashes(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, "a", KEY, durable=True) as ledger:
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
    with Ledger.open(tmp_path, "a", KEY, durable=False) as ledger:
        ledger.append(OPENED)
        ledger.sign_head(0)
        ledger.append(RELEASE)
    with Ledger.open(tmp_path, "a", KEY, durable=False) as ledger:
        assert ledger.size == 3
        ledger.sign_head(7)
        assert ledger.close("run", "done").round == 7
    assert entries(tmp_path) == [OPENED, RELEASE, ResumedEntry(0), ClosedEntry("run", "done")]
    (verified,) = verify_ledgers(tmp_path, KEY.verify_key, finished=True)
    assert (verified.entries, verified.signed, verified.heads, verified.run) == (4, 4, 3, "run")


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(1, 400), head_cut=st.integers(0, 150))
def test_a_torn_last_line_is_cut_off_and_recorded(
    tmp_path_factory: pytest.TempPathFactory, cut: int, head_cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    with Ledger.open(folder, "a", KEY, durable=False) as ledger:
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
    with Ledger.open(folder, "a", KEY, durable=False) as ledger:
        ledger.close("run", "done")
    assert entries(folder) == [
        OPENED,
        RELEASE,
        ResumedEntry(len(torn) + head_cut),
        ClosedEntry("run", "done"),
    ]
    verify_ledgers(folder, KEY.verify_key, finished=True)


def test_a_kill_between_any_two_bytes_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "whole", "a", KEY, durable=False) as ledger:
        ledger.append(OPENED)
        ledger.append(RELEASE)
    content = (tmp_path / "whole" / "a.jsonl").read_bytes()
    for length in range(0, len(content) + 1, 7):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(content[:length])
        with Ledger.open(folder, "a", KEY, durable=False) as ledger:
            ledger.append(RELEASE)
            ledger.sign_head(1)
        verify_ledgers(folder, KEY.verify_key, finished=False)


def test_a_tampered_ledger_is_not_continued(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, "a", KEY, durable=False) as ledger:
        ledger.append(OPENED)
        ledger.append(RELEASE)
        ledger.sign_head(1)
    path = tmp_path / "a.jsonl"
    before = path.read_bytes().replace(b'"bytes":184', b'"bytes":183')
    path.write_bytes(before)
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path, "a", KEY, durable=False)
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path, "a", SigningKey.generate(), durable=False)
    assert path.read_bytes() == before


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, "a", KEY, durable=False), pytest.raises(Refused, match="in use"):
        Ledger.open(tmp_path, "a", KEY, durable=False)
    Ledger.open(tmp_path, "a", KEY, durable=False).detach()


@pytest.mark.parametrize("party", ["", ".", "..", ".a", "a/b", "../a", "a.heads"])
def test_impossible_party_names_are_refused(tmp_path: Path, party: str) -> None:
    with pytest.raises(UserError):
        Ledger.open(tmp_path, party, KEY, durable=False)


def test_a_full_disk_refuses_and_leaves_no_half_line(tmp_path: Path) -> None:
    """The kernel's limit on a file's size stops the write in the middle of a line, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Ledger.open(tmp_path, "a", KEY, durable=False) as ledger:
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

    with Ledger.open(tmp_path, "a", KEY, durable=False) as ledger:
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

    with Ledger.open(tmp_path, "a", KEY, durable=True) as ledger, monkeypatch.context() as context:
        context.setattr(os, "fsync", failing)
        with pytest.raises(Refused):
            ledger.append(OPENED)
        with pytest.raises(Refused):
            ledger.sign_head(0)
    assert len(synced) == 2
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "a.heads.jsonl").read_bytes() == b""


def test_a_folder_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="nothing leaves"):
        Ledger.open(tmp_path / "file", "a", KEY, durable=False)
    ledger = Ledger.open(tmp_path, "a", KEY, durable=False)
    ledger.detach()
    with pytest.raises(Refused, match="nothing leaves"):
        ledger.append(OPENED)


WRITER = """
import sys
from pathlib import Path
from medfed.govern.entries import RepeatEntry
from medfed.govern.keys import load_or_create_key
from medfed.govern.ledger import Ledger
folder = Path(sys.argv[1])
ledger = Ledger.open(folder, "a", load_or_create_key(folder / "keys", "a"), durable=False)
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
    with Ledger.open(tmp_path, "a", key, durable=False) as ledger:
        ledger.close("run", "done")
    rounds = [entry.round for entry in entries(tmp_path) if isinstance(entry, RepeatEntry)]
    assert rounds == list(range(len(rounds)))
    assert len(rounds) >= acknowledged
    verify_ledgers(tmp_path, key.verify_key, finished=True)
