"""Ledgers for tests: each party in a folder of its own, with its own key, as in a deployed consortium."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from medfed.core.steps import Release
from medfed.govern.entries import OpenedEntry, ReleaseEntry
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.govern.merkle import leaf_hash
from medfed.govern.views import Views

PARTIES = ("coordinator", "north", "south")
KEYS = {party: SigningKey.generate() for party in PARTIES}
TRUST: dict[str, VerifyKey] = {party: key.verify_key for party, key in KEYS.items()}


def release(run: str, round_: int, digest: str = "ab") -> ReleaseEntry:
    return ReleaseEntry(
        run, round_, 1, "fedavg.train", Release.SUM, digest * 32, ("w float32[9]",), 9, "none: in the clear"
    )


def record(root: Path, *, run: str = "run", rounds: int = 3, close: bool = True, digest: str = "ab") -> dict[str, Path]:
    """Each party's ledger in a folder of its own; heads are exchanged with proofs; party → folder."""
    folders = {party: root / party for party in PARTIES}
    with ExitStack() as stack:
        ledgers = {
            party: stack.enter_context(LedgerFolder.open(folders[party], KEYS[party], durable=False)).ledger(party)
            for party in PARTIES
        }
        views = {party: Views() for party in PARTIES}
        for ledger in ledgers.values():
            ledger.append(OpenedEntry(run, "ab" * 32, "0.1"))
        for round_ in range(1, rounds + 1):
            play_round(ledgers, views, run, round_, digest)
        if close:
            for ledger in ledgers.values():
                ledger.close(run, "done")
    return folders


def play_round(ledgers: dict[str, Ledger], views: dict[str, Views], run: str, round_: int, digest: str) -> None:
    """Sites release and show their heads to the coordinator, then it shows its own to them."""
    for site in PARTIES[1:]:
        ledgers[site].append(release(run, round_, digest))
        _show(ledgers, views, site, "coordinator", run, round_)
    head = ledgers["coordinator"].sign_head(round_)
    for site in PARTIES[1:]:
        proof = ledgers["coordinator"].consistency(views[site].last("coordinator").size, head.size)
        views[site].accept("coordinator", head, proof, TRUST["coordinator"])
        ledgers[site].witness(head, "coordinator", run)


def _show(ledgers: dict[str, Ledger], views: dict[str, Views], party: str, to: str, run: str, round_: int) -> None:
    head = ledgers[party].sign_head(round_)
    proof = ledgers[party].consistency(views[to].last(party).size)
    views[to].accept(party, head, proof, TRUST[party])
    ledgers[to].witness(head, party, run)


def read(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def relink(content: list[bytes]) -> list[bytes]:
    """The forger's repair: indices and links as if the lines had been written so."""
    repaired: list[bytes] = []
    previous = ""
    for index, line in enumerate(content):
        fields = json.loads(line) | {"index": index, "previous": previous}
        new = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        previous = leaf_hash(new).hex()
        repaired.append(new + b"\n")
    return repaired
