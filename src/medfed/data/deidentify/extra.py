"""Whether the libraries of DICOM are installed."""

from __future__ import annotations

from importlib.util import find_spec

from medfed.core.errors import MissingExtra

_MODULES = {"pydicom": "pydicom", "dicomanonymizer": "dicom-anonymizer"}


def require_imaging() -> None:
    """Raise MissingExtra where the extra ``imaging`` is not installed."""
    missing = [package for module, package in _MODULES.items() if find_spec(module) is None]
    if missing:
        raise MissingExtra(
            f"de-identification needs the extra 'imaging' ({', '.join(missing)} is not installed)",
            remedy="pip install 'medfed[imaging]'",
        )
