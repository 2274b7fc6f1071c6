"""Images as they are after the task's own transforms, kept on disk under what they are made from and how.

They are kept only where the site's people name a folder, by ``MEDFED_IMAGE_CACHE``: they are patients' images like the
files that they come from. Anybody may empty the folder at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically

PLACE = "MEDFED_IMAGE_CACHE"
"""The environment variable that names the folder."""

_FORM = "1"
"""Counted up where the same files and parameters come to give other numbers."""

_DIGEST = 32


@dataclass(frozen=True)
class ImageCache:
    """A folder of images; None keeps nothing. recipe: all that was done to the images, and by what, in words."""

    folder: Path | None
    recipe: str

    @classmethod
    def from_environment(cls, recipe: Iterable[str]) -> ImageCache:
        """The cache that the site's people want, if they do."""
        place = os.environ.get(PLACE)
        return cls(Path(place) if place else None, "\n".join((_FORM, *recipe)))

    def get(self, content: bytes) -> NDArray[np.float32] | None:
        """The image of a content of this digest, if it is there and whole."""
        if self.folder is None:
            return None
        try:
            kept = self._file(content).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(kept[_DIGEST:]).digest() != kept[:_DIGEST]:
            return None
        with contextlib.suppress(ValueError, EOFError):
            array = np.lib.format.read_array(io.BytesIO(kept[_DIGEST:]), allow_pickle=False)
            return np.asarray(array, dtype=np.float32)
        return None

    def put(self, content: bytes, array: NDArray[np.float32]) -> None:
        """Keep an image; a folder that cannot be written keeps none, and stops nothing."""
        if self.folder is None:
            return
        file, stream = self._file(content), io.BytesIO()
        np.lib.format.write_array(stream, array, allow_pickle=False)
        body = stream.getvalue()
        with contextlib.suppress(OSError, RunFolderError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(file, [hashlib.sha256(body).digest(), body], mode=0o600)

    def _file(self, content: bytes) -> Path:
        key = hashlib.sha256(content + self.recipe.encode()).hexdigest()
        return Path(self.folder or "") / key[:2] / f"{key}.npy"
