"""Why a file gives no image: all sentences that the guarded process may say.

Reasons stand in messages that leave the site's own people. The process has read files of unknown origin, so its keeper
passes on none but these; what stands in brackets comes from closed lists, too.
"""

from __future__ import annotations

import builtins
import errno
import os
import re
from typing import Final

from medfed.data.images.limits import LARGEST_FILE, TOO_LARGE, WITHOUT_PIXELS

EMPTY: Final = "the file is empty"
LARGE_FILE: Final = f"a file of more than {LARGEST_FILE // 2**30} GiB"
NO_PHOTOGRAPH: Final = "neither PNG nor JPEG, or damaged at its beginning"
NO_NIFTI: Final = "not a NIfTI file, or damaged at its beginning"
NO_VOLUME: Final = "a NIfTI file that is not a single volume"
NO_DICOM: Final = "not a DICOM file"
NO_IMAGE: Final = "a DICOM file of a kind that holds no image"
LOST_IMAGE: Final = "a DICOM file that has lost its image"
ODD_SAMPLES: Final = "samples or bits that no image has"
FEWER_FRAMES: Final = "it has fewer frames than it said"
CUT_OFF: Final = "it ends before its last pixel"
NO_WINDOW: Final = "it says no window; state one, as connector: {window: [center, width]}"
ODD_WINDOW: Final = "a window of no legal width or function"
LONG_IDENTIFIER: Final = "an identifier longer than DICOM allows"
NO_EXTRA: Final = "needs the extra imaging: pip install 'medfed[imaging]'"
NO_MEMORY: Final = "needs more memory than one image may take"
NESTED: Final = "nested too deeply"
DAMAGED: Final = "damaged"
UNKNOWN_SYNTAX: Final = "an unknown transfer syntax"
MASK_FORMAT: Final = "a mask in a format that changes its numbers; write it as PNG"
MASK_OF_COLOURS: Final = "a mask of colours; write one number a pixel (grey, or a palette)"
FATAL: Final = "damaged: decoding it failed altogether"

_FIXED = frozenset({TOO_LARGE, WITHOUT_PIXELS} | {said for name, said in globals().items() if name.isupper()})
_OPEN = re.compile(r"(damaged|cannot be read|cannot be decoded) \((.+)\)")


def damaged(error: Exception) -> str:
    """A decoder failed by an error of this kind, whose own words may quote values."""
    return f"damaged ({type(error).__name__})"


def not_read(error: OSError) -> str:
    """The system does not give the file's bytes."""
    return f"cannot be read ({os.strerror(error.errno)})" if error.errno else DAMAGED


def not_decoded(syntax: str) -> str:
    """No decoder takes the transfer syntax of this name."""
    return f"cannot be decoded ({syntax})"


def known(said: object) -> str:
    """What the process said, if it may say so; else that the file is damaged."""
    if not isinstance(said, str):
        return DAMAGED
    if said in _FIXED:
        return said
    found = _OPEN.fullmatch(said)
    if found is None:
        return DAMAGED
    return said if _is_listed(found[1], found[2]) else found[1]


def _is_listed(kind: str, detail: str) -> bool:
    if kind == "damaged":
        error = getattr(builtins, detail, None)
        return isinstance(error, type) and issubclass(error, Exception)
    if kind == "cannot be read":
        return detail in {os.strerror(number) for number in errno.errorcode}
    from pydicom.uid import AllTransferSyntaxes

    return detail in {uid.name for uid in AllTransferSyntaxes} | {UNKNOWN_SYNTAX}
