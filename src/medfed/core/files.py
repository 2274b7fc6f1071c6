"""Writing files so that a reader, or a kill at any moment, never meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from medfed.core.errors import RunFolderError, UserError


def write_atomically(
    path: Path,
    data: bytes | str | Iterable[str | bytes | memoryview],
    *,
    durable: bool = False,
    mode: int | None = None,
    spare: Path | None = None,
) -> None:
    """Write beside the file, then rename over it; ``durable`` also forces it to the disk (fsync).

    data: all of it, or pieces, of which memory need hold one at a time. mode: permission bits set before any
    content is written. spare: a file beside it that nobody needs any more, to be written over and renamed, which is
    quicker than to make one and to remove the other. Raises RunFolderError where the disk is full or the folder
    cannot be written; the old file, if there was one, is whole.
    """
    with written_whole(path, durable=durable, spare=spare) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666 if mode is None else mode)
        with os.fdopen(descriptor, "wb") as file:
            for piece in (data,) if isinstance(data, bytes | str) else data:
                file.write(piece.encode() if isinstance(piece, str) else piece)
            file.truncate()


@contextlib.contextmanager
def written_whole(path: Path, *, durable: bool = False, spare: Path | None = None) -> Iterator[Path]:
    """A file beside it, to be written in the block, at whose end it takes the place of the other; or goes, if it fails.

    durable, spare, and what it raises: as :func:`write_atomically`.
    """
    partial = spare or path.with_name(f".{path.name}.partial")
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise RunFolderError(
            f"cannot write ({error.strerror or error})",
            where=str(path),
            remedy="free disk space or mend the folder's permissions, then go on with: medfed run --resume DIR",
        ) from error


def write_once(path: Path, content: bytes, *, mode: int) -> None:
    """Write a key whole under another name, durably, then link it, unless another process was first.

    Its folder is made if it is missing, for its owner alone. Raises UserError or RunFolderError where it cannot be
    written.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(draft, content, durable=True, mode=mode)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"the key cannot be written ({error.strerror})",
            where=str(path),
            remedy="mend the folder's permissions, or name another folder",
        ) from error


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock file, made if it is missing, once every other process that holds it has let go. Raises OSError."""
    import fcntl

    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, so that a renamed file survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
