"""What an audit keeps below the run's folder, so that one that was killed goes on, and a larger one uses it."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfed.core.files import write_atomically, written_whole
from medfed.engine.audit.subject import Subject
from medfed.engine.cohort import KEY_BYTES, digest_of_rows
from medfed.spec.canonical import task_digest
from medfed.version import __version__


@dataclass(frozen=True)
class KeptModels:
    """Models trained for an audit, each reduced to what its attack needs: by record, a flag and a score."""

    folder: Path

    @classmethod
    def open(cls, subject: Subject) -> KeptModels:
        """The folder ``audit/models`` of a run; emptied where it belongs to another task, to other rows, or to another
        version of MedFed. Its key is random and stays beside the digest of the rows, where only the owner reads."""
        folder = subject.folder.path / "audit"
        file, key = folder / "key.json", secrets.token_bytes(KEY_BYTES)
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(file.read_text())
            if found["digest"] == _digest(subject, bytes.fromhex(found["key"])):
                return cls(folder / "models")
        shutil.rmtree(folder / "models", ignore_errors=True)
        (folder / "models").mkdir()
        write_atomically(file, json.dumps({"key": key.hex(), "digest": _digest(subject, key)}) + "\n", mode=0o600)
        return cls(folder / "models")

    def get(
        self, name: str, make: Callable[[], tuple[NDArray[np.bool_], NDArray[np.float64]]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """The flags and scores of this name: those that are kept, or those made now and kept. Raises RunFolderError."""
        path = self.folder / f"{name}.npz"
        with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path, allow_pickle=False) as file:
            return file["flags"], file["scores"]
        flags, scores = make()
        with written_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, flags=flags, scores=scores)
        return flags, scores


def _digest(subject: Subject, key: bytes) -> str:
    hashed = hashlib.sha256(f"{__version__} {task_digest(subject.spec)}".encode())
    for site, table in subject.tables.items():
        hashed.update(site.encode() + b"\0" + digest_of_rows(key, table))
    return hashed.hexdigest()
