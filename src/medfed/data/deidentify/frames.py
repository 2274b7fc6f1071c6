"""The pixels of a file, written anew with nothing beside the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medfed.data.deidentify.bits import check_unused_bits, without_unused_bits
from medfed.data.deidentify.runs import without_rest
from medfed.data.deidentify.segments import Odd
from medfed.data.deidentify.streams import without_text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID


def is_film(syntax: UID) -> bool:
    """Whether the syntax is one of films, whose grammar is not known here: a person has to look at them anyway."""
    from pydicom.uid import MPEGTransferSyntaxes

    return syntax in MPEGTransferSyntaxes


def clean_pixels(source: Dataset, syntax: UID, content: bytes) -> tuple[bytes, list[bytes]]:
    """Pixel Data of nothing but the image, and its frames where they are compressed. Raises Odd, OddBits.

    content: the bytes that the data set was read from.
    """
    if not syntax.is_encapsulated:
        return without_unused_bits(source, syntax), []
    frames = bare_frames(source, syntax)
    check_unused_bits(source, syntax, frames, content)
    return _encapsulated(source, frames), frames


def _encapsulated(source: Dataset, frames: list[bytes]) -> bytes:
    """Encapsulated pixel data (PS3.5, A.4) of these frames, one fragment each: the source's own where that is all."""
    from pydicom.encaps import encapsulate

    without_offsets: bytes = encapsulate(frames, has_bot=False)
    return without_offsets if source.PixelData == without_offsets else encapsulate(frames)


def bare_frames(source: Dataset, syntax: UID) -> list[bytes]:
    """The frames of encapsulated pixel data (PS3.5, A.4) without text, boxes, or bytes behind their end.

    Raises Odd where a frame does not follow its syntax's grammar, and where there are more or fewer than the file says.
    """
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLELossless

    try:
        count = int(source.get("NumberOfFrames") or 1)
        frames = list(generate_frames(source.PixelData, number_of_frames=count))
        pixels = int(source.Rows) * int(source.Columns)
        segments = -(-int(source.BitsAllocated) // 8) * int(source.get("SamplesPerPixel") or 1)
    except Exception as error:  # damaged bytes make a reader fail in any way; what it says may quote them
        raise Odd from error
    if len(frames) != count:
        raise Odd
    if syntax == RLELossless:
        return [without_rest(frame, pixels, segments) for frame in frames]
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
        return [without_text(frame) for frame in frames]
    raise Odd
