"""Connector ``csv``: one delimited text file, read by a DuckDB that is locked away from everything else, unless it is
small and so plain that it needs no parser: no quotation mark, and as many fields on every line.

Options in ``data.connector``: ``delimiter`` (else found in the first line: comma, semicolon, tab or bar);
``header: false`` with ``names: [...]`` for a file that does not name its columns. A folder stands for the one
.csv file in it. The text is UTF-8, with or without a byte order mark, quoted by ``"``, and RFC 4180 in
everything else.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medfed.core.errors import DataError, TaskError
from medfed.data.columns import wanted_columns
from medfed.data.delimited import plain_columns
from medfed.data.kinds import Texts, number
from medfed.data.raw import RawTable
from medfed.spec.task import DataSpec

if TYPE_CHECKING:
    import duckdb

_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_LINE = 16 * 2**20
_CHUNK = 2**20
_LOAD = """
    CREATE TABLE rows AS SELECT * FROM read_csv(?, delim = ?, skip = ?, columns = ?, max_line_size = ?,
        header = false,
        auto_detect = false, all_varchar = true, strict_mode = true, quote = '"', escape = '"')
"""
_OPTIONS = ("delimiter", "header", "names")
_LOCK = (
    "SET temp_directory = ''",
    "SET memory_limit = '4GB'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


@dataclass(frozen=True)
class Dialect:
    """How the file is cut: its delimiter, its columns' names, and the number of lines above the rows."""

    delimiter: str
    names: tuple[str, ...]
    skip: int


@dataclass(frozen=True)
class Opening:
    """How a file begins: its first line that is not blank, how many are above it, and, if it is short, all its text."""

    above: int
    line: str
    whole: str | None


def read_csv(path: Path, data: DataSpec, where: str) -> RawTable:
    """The file's columns as text. Raises DataError naming ``where`` and file, TaskError for wrong options."""
    options = _checked_options(data.connector.options, where)
    file = _file_of(path, where)
    where = f"{where} ({file.name})"
    opening = _opening(file, where)
    dialect = _dialect(opening, options, wanted_columns(data), where)
    columns = None
    if opening.whole is not None:
        columns = plain_columns(opening.whole, dialect.delimiter, len(dialect.names), dialect.skip)
    if columns is None:
        columns = _parsed(file, dialect, where)
    return RawTable(dict(zip(dialect.names, columns, strict=True)), file.name, first_line=1 + dialect.skip)


CONNECTOR = read_csv


def locked_connection(path: Path) -> duckdb.DuckDBPyConnection:
    """An in-memory database whose table ``rows`` holds this file's rows as text, and which reaches nothing
    else.

    The file is read first and the door is shut behind it: from then on no file (this one included), no other
    database and no extension can be opened or written, and no setting can be changed. Columns are named c0,
    c1, … Raises DataError where the file cannot be read.
    """
    return _loaded(path, _dialect(_opening(path, str(path)), {}, (), str(path)), str(path))


def _parsed(file: Path, dialect: Dialect, where: str) -> list[Texts]:
    connection = _loaded(file, dialect, where)
    try:
        fetched = connection.execute("SELECT * FROM rows").fetchnumpy()
    finally:
        connection.close()
    return [_filled(fetched[f"c{i}"]) for i in range(len(dialect.names))]


def _loaded(file: Path, dialect: Dialect, where: str) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": "1"})
    types = {f"c{i}": "VARCHAR" for i in range(len(dialect.names))}
    try:
        connection.execute(_LOAD, [str(file), dialect.delimiter, dialect.skip, types, _LONGEST_LINE])
        for statement in _LOCK:
            connection.execute(statement)
    except duckdb.Error as error:
        connection.close()
        if isinstance(error, duckdb.OutOfMemoryException):
            raise DataError("the file needs too much memory", where=where, remedy="divide it") from None
        raise _explained(str(error), where) from None
    return connection


def _explained(message: str, where: str) -> DataError:
    """What DuckDB says, without the line of the file that it quotes."""
    line = re.search(r"CSV Error on Line: (\d+)", message)
    at = f"line {line.group(1)}: " if line else ""
    columns = re.search(r"^Expected Number of Columns: (\d+) Found: (\d+)", message, re.MULTILINE)
    if columns:
        cause = f"{at}{columns.group(1)} columns were expected, {columns.group(2)} found"
    elif re.search(r"^Value with unterminated quote", message, re.MULTILINE):
        cause = f"{at}a quotation mark is opened and never closed"
    elif re.search(r"^Maximum line size", message, re.MULTILINE):
        cause = f"{at}a line is longer than {_LONGEST_LINE // 2**20} MiB"
    else:
        cause = f"{at}the file is not well-formed CSV (quotes or line ends are mixed)"
    return DataError(
        cause, where=where, remedy='mend the line; quote a field that holds delimiters or line breaks by "'
    )


def _checked_options(options: dict[str, Any], where: str) -> dict[str, Any]:
    for name in options:
        if name not in _OPTIONS:
            close = difflib.get_close_matches(name, _OPTIONS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise TaskError(
                f"the connector csv has no option {name!r}",
                where=where,
                remedy=f"{hint}known: {', '.join(_OPTIONS)}",
            )
    delimiter, names = options.get("delimiter"), options.get("names")
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise TaskError("delimiter has to be a single character", where=where, remedy='delimiter: ";"')
    if not isinstance(options.get("header", True), bool):
        raise TaskError("header has to be true or false", where=where)
    if (names is None) == (options.get("header") is False):
        raise TaskError("header: false and names: [...] go together", where=where, remedy="give both, or neither")
    if names is not None and not (isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)):
        raise TaskError("names has to be a list of column names", where=where)
    return options


def _file_of(path: Path, where: str) -> Path:
    """The file itself, or the one .csv file of a folder."""
    try:
        if path.is_file():
            return path
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is neither a file nor a folder", where=where, remedy="name a .csv file")
        files = sorted(f for f in path.iterdir() if f.suffix.lower() == ".csv" and f.is_file())
    except OSError as error:
        raise _unreadable(path, error, where) from None
    if len(files) == 1:
        return files[0]
    if not files:
        raise DataError(f"the folder {path} holds no .csv file", where=where, remedy="name the file itself")
    names = ", ".join(file.name for file in files)
    raise DataError(f"the folder {path} holds several .csv files: {names}", where=where, remedy="name one of them")


def _unreadable(path: Path, error: OSError, where: str) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist", where=where, remedy="check the path under sites: in the task file")
    return DataError(f"{path} cannot be read ({error.strerror})", where=where, remedy="mend its permissions")


def _opening(file: Path, where: str) -> Opening:
    """The beginning of the file; on the way, the whole of it is checked to be UTF-8 text."""
    if set("*?[") & set(str(file)):
        raise DataError("a path with *, ? or [ in it cannot be read", where=where, remedy="rename the file or folder")
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    first, line, chunks = "", 1, 0
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                _refuse_binary(chunk, line, where)
                text = _decoded(decoder, chunk, line, where)
                if "\n" not in first.lstrip() and len(first) < _LONGEST_LINE:
                    first += text
                line += chunk.count(b"\n")
                chunks += 1
            _decoded(decoder, b"", line, where, final=True)
    except OSError as error:
        raise _unreadable(file, error, where) from None
    lines = re.split(r"\r\n|\r|\n", first)
    for above, text in enumerate(lines):
        if text.strip():
            return Opening(above, text, whole=first if chunks == 1 else None)
    raise DataError("the file is empty", where=where, remedy="it needs a line of column names and one of values")


def _decoded(decoder: Any, chunk: bytes, line: int, where: str, *, final: bool = False) -> str:
    try:
        return str(decoder.decode(chunk, final))
    except UnicodeDecodeError as error:
        at = line + error.object[: error.start].count(b"\n")
        raise DataError(f"line {at}: the file is not UTF-8 text", where=where, remedy="save it as UTF-8") from None


def _refuse_binary(chunk: bytes, line: int, where: str) -> None:
    zero = chunk.find(b"\0")
    if zero >= 0:
        at = line + chunk[:zero].count(b"\n")
        raise DataError(f"line {at}: the file holds NUL bytes", where=where, remedy="save it as UTF-8 text (CSV)")


def _dialect(opening: Opening, options: dict[str, Any], wanted: tuple[str, ...], where: str) -> Dialect:
    """The delimiter and the column names, from the first line and the options."""
    line = opening.line
    names = tuple(options["names"]) if "names" in options else None
    given = options.get("delimiter")
    delimiter = _find_delimiter(line, wanted, names, where) if given is None else str(given)
    found = _cut(line, delimiter)
    if names is not None and len(names) != len(found):
        raise DataError(
            f"names lists {len(names)} columns, but the first line has {len(found)}",
            where=where,
            remedy="name every column in order, and check the delimiter",
        )
    chosen = names if names is not None else found
    _refuse_unclear_names(chosen, wanted, where)
    return Dialect(delimiter, chosen, skip=opening.above + (names is None))


def _find_delimiter(line: str, wanted: tuple[str, ...], names: tuple[str, ...] | None, where: str) -> str:
    cuts = {d: _cut(line, d) for d in _DELIMITERS}
    fitting = [d for d, found in cuts.items() if len(found) > 1]
    if len(fitting) > 1:
        fits = {d for d in fitting if (len(cuts[d]) == len(names) if names else set(wanted) <= set(cuts[d]))}
        fitting = [d for d in fitting if d in fits]
    if len(fitting) == 1:
        return fitting[0]
    if all(len(found) == 1 for found in cuts.values()) and (len(names) == 1 if names else set(wanted) <= {line}):
        return ","
    cause = "only one column was found: another delimiter?"
    if any(len(found) > 1 for found in cuts.values()):
        cause = "the delimiter cannot be told from the first line"
    raise DataError(cause, where=where, remedy='say it in the task: connector: {name: csv, delimiter: ";"}')


def _cut(line: str, delimiter: str) -> tuple[str, ...]:
    try:
        fields = next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return (line,)
    return tuple(field.strip() for field in fields)


def _refuse_unclear_names(names: tuple[str, ...], wanted: tuple[str, ...], where: str) -> None:
    """Raise DataError for names that cannot be used; they are not quoted, for they may be a first row of
    values."""
    if any(number(name) is not None for name in names) and wanted and not set(wanted) & set(names):
        raise DataError(
            "the first line holds values, not the names of columns",
            where=where,
            remedy="name them in the task: connector: {name: csv, header: false, names: [...]}",
        )
    for at, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"column {at} has no name", where=where, remedy="name it in the first line")
        if name in names[: at - 1]:
            first = names.index(name) + 1
            raise DataError(f"columns {first} and {at} have the same name", where=where, remedy="rename one")


def _filled(values: Any) -> Any:
    """DuckDB's (masked) column as an object array with None for NULL."""
    texts = np.array(np.ma.getdata(values), dtype=object)
    texts[np.ma.getmaskarray(values)] = None
    return texts
