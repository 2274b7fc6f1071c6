"""New images, of which nobody has said a label: the files of a tree of any kind that is known, or an archive."""

from __future__ import annotations

from pathlib import Path

from medfed.core.errors import DataError
from medfed.data.connectors import CONNECTORS
from medfed.data.connectors.dicom import found_pictures, stated_window
from medfed.data.connectors.npz import archive_pictures
from medfed.data.images.decoding import NIFTI, PHOTOGRAPHS
from medfed.data.images.files import files_below
from medfed.data.raw import Pictures
from medfed.spec.task import DataSpec


def unlabelled(path: Path, data: DataSpec, where: str, *, volumes: bool) -> Pictures:
    """The images of a DICOM, NIfTI, PNG or JPEG file, of a tree of such files, or of an ``.npz`` archive.

    They are read as the task's connector reads its own: with its window, where it states one. volumes: whether each
    series is one image. Raises DataError where there is nothing to read, MissingExtra for DICOM files without the extra
    ``imaging``.
    """
    if path.is_file() and path.suffix == ".npz":
        return Pictures(archive_pictures(path, where))
    if not path.exists():
        raise DataError(f"{path} does not exist", where=where, remedy="name a file, a folder or an .npz archive")
    files = [path] if path.is_file() else list(files_below(path, where))
    if not files:
        raise DataError("the folder holds no file", where=f"{where} ({path.name})", remedy="name a folder of images")
    window = None
    if any(not file.name.lower().endswith((*PHOTOGRAPHS, *NIFTI)) for file in files):
        CONNECTORS.get("dicom")  # tells of a missing extra
    if data.connector.name == "dicom":
        window = stated_window(data, where)
    return found_pictures(files, path if path.is_dir() else path.parent, window, volumes=volumes)
