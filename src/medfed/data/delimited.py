"""Delimited text so plain that it can be read in one way only, and needs no parser."""

from __future__ import annotations

from medfed.data.kinds import Texts, objects


def plain_columns(text: str, delimiter: str, columns: int, skip: int) -> list[Texts] | None:
    """The columns of the lines below the first ``skip``, None for an empty field; None where the text is not plain.

    Plain: several columns, no quotation mark, one kind of line end, and as many fields on every line.
    """
    if columns < 2 or '"' in text:
        return None
    if "\r" in text:
        if not text.count("\r") == text.count("\n") == text.count("\r\n"):
            return None
        text = text.replace("\r\n", "\n")
    rows = [line.split(delimiter) for line in text.removesuffix("\n").split("\n")[skip:]]
    if not rows or any(len(row) != columns for row in rows):
        return None
    return [objects([field or None for field in column]) for column in zip(*rows, strict=True)]
