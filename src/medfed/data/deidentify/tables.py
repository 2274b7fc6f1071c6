"""Lookup tables: bytes that are kept only where they are as long as their descriptor says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_DESCRIPTORS = {"LUTData": "LUTDescriptor"} | {
    f"{color}PaletteColorLookupTableData": f"{color}PaletteColorLookupTableDescriptor"
    for color in ("Red", "Green", "Blue")
}
_ALL = 65536


def is_whole_table(element: DataElement, source: Dataset) -> bool:
    """Whether the bytes are a lookup table (PS3.3, C.11.1.1 and C.7.6.3.1.5) with nothing after its last entry."""
    descriptor = source.get(_DESCRIPTORS.get(element.keyword, ""))
    try:
        entries, bits = int(descriptor[0]) or _ALL, int(descriptor[2])
    except (TypeError, ValueError, IndexError):
        return False
    entries = entries + _ALL if entries < 0 else entries
    sizes = {2 * entries, entries + entries % 2} if bits <= 8 else {2 * entries}
    return len(element.value) in sizes
