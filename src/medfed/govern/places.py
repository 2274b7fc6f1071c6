"""Where ledgers lie: run folders, ledger folders, a party's own folder and bundles; and whose keys are trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from medfed.core.errors import LedgerError, RunFolderError, UserError
from medfed.govern.bundle import finished_in, unpack
from medfed.govern.chain import HEADS_SUFFIX
from medfed.govern.keys import VerifyKey, read_public_key

COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Holding:
    """A folder of ledgers of one run, or of an office.

    place: how the user named where it lies. finished: the run is said to have ended.
    """

    place: str
    name: str
    folder: Path
    finished: bool

    def parties(self) -> list[str]:
        """Every party that left entries or heads here, sorted. Raises LedgerError where none did."""
        names = [path.name for path in self.folder.glob("*.jsonl")]
        parties = {name.removesuffix(HEADS_SUFFIX).removesuffix(".jsonl") for name in names}
        if not parties:
            raise LedgerError("there is no ledger in this folder", where=str(self.folder))
        return sorted(parties)


@dataclass(frozen=True)
class Place:
    """All that one place holds, and the public keys that its owner trusts: of a party's own folder only."""

    holdings: tuple[Holding, ...]
    keys: Mapping[str, VerifyKey] = field(default_factory=dict)


@dataclass(frozen=True)
class Trust:
    """Whose public key is whose; ``others``: of every party that is not named."""

    named: Mapping[str, VerifyKey]
    others: VerifyKey | None = None

    def key_of(self, party: str) -> VerifyKey:
        """The key of a party. Raises LedgerError where none is known."""
        key = self.named.get(party, self.others)
        if key is None:
            raise LedgerError(
                "no public key of this party is known",
                where=party,
                remedy=f"obtain it from the party itself, not from the run folder, and name it by --key {party}=FILE",
            )
        return key


@contextmanager
def open_place(path: Path) -> Iterator[Place]:
    """What a place holds, as long as the context lasts. Raises RunFolderError where it holds no ledgers."""
    if path.is_file():
        with TemporaryDirectory(prefix="medfed-bundle-") as unpacked:
            unpack(path, Path(unpacked))
            yield Place(tuple(_holdings(Path(unpacked), str(path))))
    else:
        yield Place(tuple(_holdings(path, str(path))), _own_keys(path))


def _holdings(path: Path, place: str) -> list[Holding]:
    ledgers = path / "ledger"
    runs = sorted(each for each in path.glob("runs/*/ledger") if each.is_dir())
    inner = sorted(each for each in ledgers.iterdir() if each.is_dir()) if ledgers.is_dir() else []
    holdings = []
    if ledgers.is_dir() and (not (inner or runs) or any(ledgers.glob("*.jsonl"))):
        holdings.append(Holding(place, path.resolve().name, ledgers, (path / "results.json").exists()))
    finished = finished_in(path)
    holdings += [Holding(place, each.name, each, each.name in finished) for each in inner]
    holdings += [Holding(place, e.parent.name, e, (e.parent / "results.json").exists()) for e in runs]
    if not holdings and any(path.glob("*" + HEADS_SUFFIX)):
        run = path.resolve().parent if path.resolve().name == "ledger" else path.resolve()
        holdings.append(Holding(place, run.name, path, (run / "results.json").exists()))
    if not holdings:
        raise RunFolderError(
            "there are no ledgers in this folder", where=place, remedy="name a run's folder, a site's, or a bundle"
        )
    return holdings


def _own_keys(path: Path) -> dict[str, VerifyKey]:
    """The public keys of the party's own folder that the place is, or lies in: it has the private key too."""
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents[:3]):
        keys = folder / "keys"
        if (keys / "coordinator.key").exists():
            known = {public.stem: public for public in (keys / "sites").glob("*.pub")}
            return _read(known | {COORDINATOR: keys / "coordinator.pub"})
        if (keys / "site.key").exists() and (folder / "identity.json").exists():
            return _read({COORDINATOR: keys / "coordinator.pub", _site(folder / "identity.json"): keys / "site.pub"})
    return {}


def _site(identity: Path) -> str:
    try:
        return str(json.loads(identity.read_bytes())["site"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError("this file is damaged", where=str(identity), remedy="bring back a copy of it") from error


def _read(files: Mapping[str, Path]) -> dict[str, VerifyKey]:
    return {party: read_public_key(path) for party, path in files.items() if path.exists()}
