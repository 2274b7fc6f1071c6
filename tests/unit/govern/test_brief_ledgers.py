"""One ledger that several real processes append to in turn, some of which are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ledger_forms import KEYS, TRUST, read

from medfed.core.errors import LedgerError, RefusalReason, Refused
from medfed.govern import ledger as ledger_module
from medfed.govern.entries import OFFICE, DecisionEntry, ProposalEntry, RequestEntry, ResumedEntry, decode_entry
from medfed.govern.keys import load_or_create_key
from medfed.govern.ledger import LedgerFolder, open_briefly
from medfed.govern.verify import verify_ledgers

PROPOSAL = ProposalEntry(OFFICE, "ab" * 32, "Mortality after infarction", "consent, Art. 9(2)(a) GDPR", "EK 2025/17")
DECISION = DecisionEntry(OFFICE, "ab" * 32, "approve", "Dr. Ö. Example", "", "cd" * 32)

WRITER = """
import sys
from pathlib import Path
from medfed.govern.entries import OFFICE, RequestEntry
from medfed.govern.keys import load_or_create_key
from medfed.govern.ledger import open_briefly
folder, name, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
key = load_or_create_key(folder / "keys", "north")
for number in range(times):
    with open_briefly(folder / "office", key, "north", patience=60) as ledger:
        ledger.append(RequestEntry(OFFICE, number, 0, name + "x" * 3000, "ab"))
    print(number, flush=True)
"""


def writer(folder: Path, name: str, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name, str(times)], stdout=subprocess.PIPE)


def test_an_office_ledger_tells_what_was_proposed_and_decided(tmp_path: Path) -> None:
    for entry in (PROPOSAL, DECISION):
        with open_briefly(tmp_path / "a" / "office", KEYS["north"], "north") as ledger:
            ledger.append(entry)
    lines = read(tmp_path / "a" / "office" / "north.jsonl")
    assert [decode_entry(line[:-1]).entry for line in lines] == [PROPOSAL, DECISION]
    (verified,) = verify_ledgers(tmp_path / "a" / "office", TRUST, finished=False)
    assert (verified.run, verified.entries, verified.signed, verified.heads) == ("office", 2, 2, 2)


def test_the_names_of_new_folders_are_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(ledger_module, "sync_folder", synced.append)
    for folder, durable in (("a/b/office", True), ("c/d", False)):
        with open_briefly(tmp_path / folder, KEYS["north"], "north", durable=durable) as ledger:
            ledger.append(PROPOSAL)
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_processes_take_turns_and_lose_nothing(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "keys", "north").verify_key
    writers = [writer(tmp_path, name, 12) for name in ("a", "b", "c")]
    assert [each.communicate(timeout=60) and each.returncode for each in writers] == [0, 0, 0]
    entries = [decode_entry(line[:-1]).entry for line in read(tmp_path / "office" / "north.jsonl")]
    for name in ("a", "b", "c"):
        rounds = [e.round for e in entries if isinstance(e, RequestEntry) and e.step[0] == name]
        assert rounds == list(range(12))
    assert len(entries) == 36
    (verified,) = verify_ledgers(tmp_path / "office", key, finished=False)
    assert (verified.signed, verified.heads) == (36, 36)


def test_what_was_appended_survives_kills_in_the_middle(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "keys", "north")
    drawn = random.Random(3)
    done = 0
    for turn in range(6):
        with writer(tmp_path, str(turn), 10**6) as process:
            assert process.stdout is not None
            for _ in range(drawn.randint(1, 8)):
                process.stdout.readline()
                done += 1
            time.sleep(drawn.random() * 0.005)
            process.kill()
            done += len(process.stdout.read().splitlines())
    with open_briefly(tmp_path / "office", key, "north") as ledger:
        ledger.append(DECISION)
    entries = [decode_entry(line[:-1]).entry for line in read(tmp_path / "office" / "north.jsonl")]
    requests = [entry for entry in entries if isinstance(entry, RequestEntry)]
    assert done <= len(requests) <= done + 6
    (verified,) = verify_ledgers(tmp_path / "office", key.verify_key, finished=False)
    assert verified.signed == verified.entries == len(entries)


@pytest.mark.parametrize("torn", [b"{", b'{"cut":0,"index":1'])
def test_a_torn_line_is_cut_off_and_only_that_is_recorded(tmp_path: Path, torn: bytes) -> None:
    with open_briefly(tmp_path, KEYS["north"], "north") as ledger:
        ledger.append(PROPOSAL)
    with (tmp_path / "north.jsonl").open("ab") as file:
        file.write(torn)
    with open_briefly(tmp_path, KEYS["north"], "north") as ledger:
        ledger.append(DECISION)
    entries = [decode_entry(line[:-1]).entry for line in read(tmp_path / "north.jsonl")]
    assert entries == [PROPOSAL, ResumedEntry(len(torn)), DECISION]
    verify_ledgers(tmp_path, TRUST, finished=False)


def test_entries_that_a_kill_left_unsigned_are_signed_by_the_next(tmp_path: Path) -> None:
    with open_briefly(tmp_path, KEYS["north"], "north") as ledger:
        ledger.append(PROPOSAL)
    with LedgerFolder.open(tmp_path, KEYS["north"], durable=True) as folder:
        folder.ledger("north", briefly=True).append(DECISION)
    assert verify_ledgers(tmp_path, TRUST, finished=False)[0].signed == 1
    with open_briefly(tmp_path, KEYS["north"], "north"):
        pass
    assert verify_ledgers(tmp_path, TRUST, finished=False)[0].signed == 2


def test_who_waits_in_vain_is_refused_after_its_patience(tmp_path: Path) -> None:
    with open_briefly(tmp_path, KEYS["north"], "north"):
        began = time.monotonic()
        with (
            pytest.raises(Refused, match="in use") as caught,
            open_briefly(tmp_path, KEYS["north"], "north", patience=0.3),
        ):
            pass
        assert 0.3 <= time.monotonic() - began < 3
    assert caught.value.reason is RefusalReason.LEDGER


def test_the_lock_is_given_back_when_the_body_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_briefly(tmp_path, KEYS["north"], "north") as ledger:
        ledger.append(PROPOSAL)
        raise ZeroDivisionError
    with open_briefly(tmp_path, KEYS["north"], "north", patience=0) as ledger:
        assert ledger.size == 1


def test_a_tampered_office_ledger_is_not_written_on(tmp_path: Path) -> None:
    with open_briefly(tmp_path, KEYS["north"], "north") as ledger:
        ledger.append(DECISION)
    path = tmp_path / "north.jsonl"
    path.write_bytes(path.read_bytes().replace(b"approve", b"refuse!"))
    with pytest.raises(LedgerError, match="changed"), open_briefly(tmp_path, KEYS["north"], "north"):
        pass
