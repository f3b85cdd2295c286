"""Read the rows of a .csv, .jsonl or .parquet file, with the line where each begins."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from .. import texts
from ..errors import MissingExtra

Row = dict[str, Any]
LARGEST = 2**26
"""Largest text table, in bytes."""

_DELIMITERS = ",;\t"
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


def read_rows(path: Path, columns: Collection[str]) -> list[tuple[str, Row]]:
    """Return ("line 5", row) of every row in file order; OSError or ValueError names the faulty line.

    path: .csv with a header, .jsonl with one object per line, or .parquet. columns: expected names, used to
    detect the delimiter. Column names are lowercased and "-" becomes "_". Empty rows, comments ("# ...")
    and an unnamed column of row numbers are skipped.
    """
    return READERS[path.suffix.lower()](path, columns)


def _named(name: object) -> str:
    return str(name).strip().lower().replace("-", "_")


def _refuse_twice(names: Sequence[str], where: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{where}: the column {name!r} is there twice")


def _csv(path: Path, columns: Collection[str]) -> list[tuple[str, Row]]:
    text = texts.read_text(path, LARGEST)
    lines = texts.lines(text)
    delimiter, skipped = _delimiter(lines, columns)
    records = list(_records(lines, delimiter, skipped))
    if not records:
        return []
    (head_line, head), *records = records
    names = [_named(name) for name in head]
    while names and not names[-1]:  # trailing delimiter
        names.pop()
    _refuse_twice([name for name in names if name], f"line {head_line}")
    rows = [(line, _fitting(cells, len(names), line)) for line, cells in records]
    kept = _with_names(names, [cells for _, cells in rows], head_line)
    return [(f"line {line}", {names[i]: _decimal(cells[i], delimiter) for i in kept}) for line, cells in rows]


def _records(lines: list[str], delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of every record that is neither empty nor a comment."""
    first = skipped + 1
    comments: set[int] = set()

    def kept() -> Iterator[str]:
        for number, line in enumerate(lines[skipped:], start=first):
            # a line inside a quoted cell is no comment: the reader is then in the middle of a record
            if line.startswith("#") and number == begins:
                if len(line) > 1 and not line[1:2].isspace() and line[1] != "#":
                    fix = "add a space after it for a comment, or quote the cell"
                    raise ValueError(f"line {number} begins with '#': {fix}")
                comments.add(number)
                yield "\n"
            else:
                yield line + "\n"

    begins = first
    reader = csv.reader(kept(), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"line {begins}: {error}") from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield begins, cells
        begins = skipped + reader.line_num + 1


def _delimiter(lines: list[str], columns: Collection[str]) -> tuple[str, int]:
    """Return the delimiter, from Excel's "sep=;" line or the header, and the number of lines to skip."""
    if lines and (said := re.fullmatch(r"sep=([,;\t])", lines[0].strip(" "), re.IGNORECASE)):
        return said[1], 1
    head = next((line for line in lines if line.strip() and not line.startswith("#")), "")

    def known(delimiter: str) -> int:
        try:
            return sum(_named(name) in columns for name in next(csv.reader([head], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=known), 0


def _fitting(cells: list[str], width: int, line: int) -> list[str]:
    """Return one cell per column name; drop empty cells at the end."""
    while len(cells) > width and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) != width:
        more = "more" if len(cells) > width else "fewer"
        raise ValueError(f"line {line} has {more} cells than the header: {len(cells)}, not {width}")
    return cells


def _with_names(names: list[str], rows: list[list[str]], line: int) -> list[int]:
    """Return the indices of named columns; ValueError for an unnamed column that does not number the rows."""
    for place, name in enumerate(names):
        cells = [row[place].strip() for row in rows]
        if not name and any(cells) and not (place == 0 and _counts(cells)):
            raise ValueError(f"line {line}: column {place + 1} has no name")
    return [place for place, name in enumerate(names) if name]


def _counts(cells: list[str]) -> bool:
    return all(cell.isdecimal() and len(cell) < texts.DIGITS for cell in cells) and all(
        int(a) < int(b) for a, b in pairwise(cells)
    )


def _decimal(cell: str, delimiter: str) -> str:
    """Replace a decimal comma by a point where ";" separates cells."""
    return cell.replace(",", ".") if delimiter == ";" and re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell) else cell


def _jsonl(path: Path, columns: Collection[str]) -> list[tuple[str, Row]]:
    rows = []
    for number, line in enumerate(texts.lines(texts.read_text(path, LARGEST)), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        values = texts.parse_json(line, number)
        if not isinstance(values, dict):
            raise ValueError(f"line {number}: every line must be a JSON object")
        names = [_named(name) for name in values]
        _refuse_twice(names, f"line {number}")
        rows.append((f"line {number}", dict(zip(names, values.values(), strict=True))))
    return rows


def _parquet(path: Path, columns: Collection[str]) -> list[tuple[str, Row]]:
    if find_spec("pyarrow") is None:
        raise MissingExtra("prompts", "ray")
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(path).read()
    except ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    names = [_named(name) for name in table.column_names]
    _refuse_twice(names, "the file")
    kept = [place for place, name in enumerate(names) if not _PANDAS_INDEX.fullmatch(name)]
    cells = [table.column(place).to_pylist() for place in kept]
    return [
        (f"row {n}", dict(zip([names[i] for i in kept], row, strict=True)))
        for n, row in enumerate(zip(*cells, strict=True), 1)
    ]


READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
