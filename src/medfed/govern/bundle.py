"""Bundles: ledgers, their heads and the public keys that are known, in one file for an auditor.

A bundle is a ZIP file laid out as a site's folder: ``ledger/<name>/<party>.jsonl`` and heads, ``keys/<party>.pub``,
``README.txt``, and ``bundle.json``, which names the finished runs. It holds what the ledgers hold: digests, sizes and
names, no patient's value. Its keys are there to be compared by fingerprint, and never trusted by themselves.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from medfed.core.errors import LedgerError, RunFolderError
from medfed.govern.chain import HEADS_SUFFIX, heads_path, ledger_path
from medfed.govern.keys import VerifyKey
from medfed.govern.proofs import fingerprint

_MANIFEST = "bundle.json"
_LARGEST = 8 * 2**30
_MEMBER = re.compile(r"ledger/(?!\.)[^/\\\0]+/(?!\.)[^/\\\0]+\.jsonl")
_PIECE = 1 << 20
_METHODS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def export(
    ledgers: Mapping[str, Path], finished: frozenset[str], keys: Mapping[str, VerifyKey], output: Path
) -> list[str]:
    """Write the ledgers in these folders (name → folder) to a bundle; returns the parties whose ledgers it holds.

    They are copied as they are, verified or not, but for a last line that is being written. Raises RunFolderError where
    the file cannot be written, LedgerError where a ledger cannot be read.
    """
    parties: set[str] = set()
    partial = output.with_name(f".{output.name}.{secrets.token_hex(8)}")
    try:
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
                for name, folder in sorted(ledgers.items()):
                    parties |= _add_ledgers(bundle, name, folder)
                known = {party: key for party, key in sorted(keys.items()) if party in parties}
                for party, key in known.items():
                    bundle.writestr(_member(f"keys/{party}.pub"), key.pem())
                bundle.writestr(_member(_MANIFEST), json.dumps({"finished": sorted(finished)}) + "\n")
                bundle.writestr(_member("README.txt"), _readme(output.name, sorted(parties), known))
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(f"the bundle cannot be written ({error.strerror or error})", where=str(output)) from error
    return sorted(parties)


def unpack(path: Path, folder: Path) -> None:
    """Unpack the ledgers of a bundle. Raises RunFolderError where the file is no bundle."""
    try:
        with zipfile.ZipFile(path) as bundle:
            members = [m for m in bundle.infolist() if m.filename == _MANIFEST or _MEMBER.fullmatch(m.filename)]
            if any(member.compress_type not in _METHODS for member in members):
                raise ValueError("no method that export uses")
            if sum(member.file_size for member in members) > _LARGEST:
                raise RunFolderError("it is too large to be a bundle of ledgers", where=str(path))
            for member in members:
                bundle.extract(member, folder)
    except _DAMAGE as error:
        raise RunFolderError(
            "this file is not a bundle of ledgers, or it is damaged",
            where=str(path),
            remedy="name a folder, or a file that medfed ledger export wrote",
        ) from error


def finished_in(folder: Path) -> frozenset[str]:
    """The ledgers of an unpacked bundle whose run was finished; of any other folder, none."""
    try:
        finished = json.loads((folder / _MANIFEST).read_bytes())["finished"]
        return frozenset(str(name) for name in finished)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{_MANIFEST} was damaged", where=str(folder)) from error


def _add_ledgers(bundle: zipfile.ZipFile, name: str, folder: Path) -> set[str]:
    """Add a folder's ledgers; each one's heads are read first, so that the entries they cover are there."""
    names = {path.name for path in folder.glob("*.jsonl")}
    parties = {each.removesuffix(HEADS_SUFFIX).removesuffix(".jsonl") for each in names}
    for party in sorted(parties):
        for path in (heads_path(folder, party), ledger_path(folder, party)):
            if path.exists():
                with bundle.open(_member(f"ledger/{name}/{path.name}"), "w", force_zip64=True) as file:
                    for piece in _whole_lines(path, party):
                        file.write(piece)
    return parties


def _whole_lines(path: Path, party: str) -> Iterator[bytes]:
    """The file as it is now, but for an unfinished last line."""
    try:
        with path.open("rb") as file:
            rest = os.fstat(file.fileno()).st_size
            kept = b""
            while rest and (piece := file.read(min(rest, _PIECE))):
                rest -= len(piece)
                whole, newline, tail = (kept + piece).rpartition(b"\n")
                yield whole + newline
                kept = tail
    except OSError as error:
        raise LedgerError(f"{path.name} cannot be read ({error.strerror})", where=party) from error


def _member(name: str) -> zipfile.ZipInfo:
    """A member without the time of day: the same ledgers give the same bytes."""
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member


def _readme(name: str, parties: list[str], keys: Mapping[str, VerifyKey]) -> str:
    options = " ".join(f"--key '{party}=FILE'" for party in parties) if len(parties) <= 4 else "--key PARTY=FILE ..."
    prints = "".join(f"  {party}: {fingerprint(key)}\n" for party, key in keys.items())
    prints = prints or "  (none)\n"
    return (
        "Ledgers exported by MedFed. One JSON object a line, which carries the hash of the line before; the files\n"
        "*.heads.jsonl hold signed heads of the Merkle tree (RFC 6962, SHA-256, Ed25519) over the lines.\n"
        "They tell what was asked and what left, by digest and size; no patient's value is in them.\n\n"
        f"To verify, with MedFed installed:\n\n  medfed ledger verify {name} {options}\n\n"
        "Name further places of the same run to have them compared: other parties' bundles, or folders.\n"
        "Get each public key from the party itself, not from this file. Those in keys/ are for comparison; their\n"
        f"fingerprints (SHA-256 of the key's 32 bytes), to be read over the telephone:\n\n{prints}"
    )
