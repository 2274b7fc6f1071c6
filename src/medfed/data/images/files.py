"""Images that are files below a folder: found, hashed, and read by the guarded process."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, TaskError
from medfed.data.images.decoding import NIFTI
from medfed.data.images.guard import Guard
from medfed.data.images.limits import LARGEST_FILE
from medfed.data.images.wire import Order, Window
from medfed.data.raw import Unreadable
from medfed.spec.task import DataSpec


@dataclass(frozen=True, eq=False)
class FilePicture:
    """A file, or one frame of it. frame: counted from 0; None: all there are. mask: it holds classes."""

    guard: Guard
    path: Path
    name: str
    frame: int | None = None
    window: Window | None = None
    mask: bool = False

    def digest(self) -> bytes:
        """SHA-256 of the file's content, the frame and the window. Raises Unreadable."""
        return hashlib.sha256(content_digest(self.path) + repr((self.frame, self.window)).encode()).digest()

    def pixels(self) -> NDArray[Any]:
        """Its numbers, as the guarded process decodes them. Raises Unreadable."""
        return self.guard.pixels(Order(str(self.path), True, self.frame, self.window, self.mask))

    def affine(self) -> NDArray[np.float64] | None:
        """Of a NIfTI volume its matrix and, as the last column, its offset, (3, 4) in mm; None of others.

        Raises Unreadable.
        """
        if not self.path.name.lower().endswith(NIFTI):
            return None
        header = self.guard.header(self.path)
        if not header.position:
            return None
        matrix = np.array(header.orientation, np.float64).reshape(3, 3)
        return np.column_stack([matrix, np.array(header.position, np.float64)])


def content_digest(path: Path) -> bytes:
    """SHA-256 of a file's content. Raises Unreadable."""
    try:
        about = path.stat()
        if about.st_size > LARGEST_FILE:
            raise Unreadable(f"a file of more than {LARGEST_FILE // 2**30} GiB")
        return _hashed(path, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None


@lru_cache(maxsize=1)
def _hashed(path: Path, _size: int, _modified: int) -> bytes:
    """The digest, kept while one frame after the other is asked about."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def files_below(folder: Path, where: str) -> Iterator[Path]:
    """The plain files below a folder, in the order of their names; hidden ones are passed over, links not followed.

    Raises DataError where the folder cannot be read.
    """
    if not folder.is_dir():
        cause = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {cause}", where=where, remedy="name the folder that holds the images")

    def stop(error: OSError) -> None:
        raise DataError(f"a folder cannot be read ({error.strerror})", where=where, remedy="mend its permissions")

    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                yield path


def relative(path: Path, folder: Path) -> str:
    """A file's name below the folder, with forward slashes; what is no Unicode in it becomes a question mark."""
    return path.relative_to(folder).as_posix().encode("utf-8", "replace").decode()


def checked_options(data: DataSpec, known: Mapping[str, str], where: str) -> dict[str, Any]:
    """The connector's options. Raises TaskError for one that it does not have. known: option → an example."""
    name, options = data.connector.name, data.connector.options
    for option in options:
        if option not in known:
            listed = ", ".join(known)
            raise TaskError(f"the connector {name} has no option {option!r}", where=where, remedy=f"known: {listed}")
    return options


def text_option(options: Mapping[str, Any], option: str, where: str, choices: tuple[str, ...] = ()) -> str | None:
    """An option that is text, one of the choices if there are any. Raises TaskError."""
    value = options.get(option)
    if value is not None and (not isinstance(value, str) or (choices and value not in choices)):
        remedy = f"write one of: {', '.join(choices)}" if choices else f"{option}: NAME"
        raise TaskError(f"{option} has to be {'one of its choices' if choices else 'text'}", where=where, remedy=remedy)
    return value


def stacked(slices: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Slices (channels, height, width) as one volume (channels, depth, height, width). Raises Unreadable."""
    if len({part.shape for part in slices}) > 1:
        raise Unreadable("a series whose slices differ in shape")
    return np.stack(slices, axis=1)
