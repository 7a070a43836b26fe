"""What is seen of a file before its format is known: how it is packed, its first rows, or the document it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson

from flipguard.errors import DataError, shown
from flipguard.files import LONGEST_LINE, open_binary, read_jsonl, reading
from flipguard.records import Row

Kind = Literal["folder", "zip", "parquet", "csv", "array", "object", "lines"]
HEAD = 65_536  # bytes looked at to recognise a format; a longer first line is read whole
LARGEST_DOCUMENT = 1_073_741_824  # bytes of one JSON document, unpacked
FIRST_ROWS = 100
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder whose format is to be found.

    Attributes:
        path: where it is.
        kind: how it is packed; `lines` where nothing else fits.
        head: its first bytes, unpacked.
        rows: the JSON objects on its first lines, in its array, or the first rows of its table.
        document: what the file is as a whole, if that is one JSON array or object.
        fault: why the document cannot be read.
        part: what stands behind `#` in the path, for files that hold several models.
        partner: the part of the run on the other side, where that is in the same file.
        alone: no other file is compared with this one.
    """

    path: Path
    kind: Kind
    head: bytes = b""
    rows: tuple[Row, ...] = ()
    document: Any = None
    fault: str = ""
    part: str | None = None
    partner: str | None = None
    alone: bool = True

    @classmethod
    def of(cls, path: Path, *, part: str | None = None, partner: str | None = None, alone: bool = True) -> Source:
        """Look at `path`; a pipe cannot be looked at twice and is refused."""
        kind, head, rows, document, fault = _look(path)
        return cls(path, kind, head, rows, document, fault, part, partner, alone)

    @property
    def stem(self) -> str:
        """The file's name without its endings: runs/old.jsonl.gz is "old"."""
        name = self.path.name
        for ending in (".gz", ".jsonl", ".json", ".csv", ".parquet", ".eval"):
            name = name.removesuffix(ending)
        return name or self.path.name

    def place(self, number: int) -> str:
        """Where row `number` is, as errors name it."""
        return f"{self.path}: row {number}" if self.kind in ("array", "parquet", "zip") else f"{self.path}:{number}"

    def why_no_rows(self) -> str:
        """Why there are no rows, for a format that needs some."""
        if self.kind in ("folder", "zip"):
            return "it is a folder" if self.kind == "folder" else "it is a zip archive"
        if self.fault:
            return self.fault
        if self.kind == "array":
            return "its array holds no objects" if self.document else "its array is empty"
        first = next((line for line in self.head.splitlines() if line.strip()), b"").strip()
        return f"its first line is not a JSON object: {shown(first, 40)}"

    def each(self, on_bad: Callable[[str], None], *, lenient: bool = False) -> Iterator[tuple[int, Row]]:
        """All rows with their numbers.

        Args:
            on_bad: told of each malformed row; it may raise to stop.
            lenient: take NaN, Infinity and lone surrogates, which other tools write, though they are no JSON.
        """
        if self.kind == "array":
            return self._items(on_bad)
        if self.kind == "object" and self.document is not None:
            return iter([(1, self.document)])
        if self.kind == "csv":
            from flipguard.evaluate.tables import read_csv

            return read_csv(self.path, on_bad)
        if self.kind == "parquet":
            from flipguard.evaluate.tables import read_parquet

            return read_parquet(self.path)
        loads = lenient_json if lenient else orjson.loads
        return read_jsonl(self.path, skip_bad=sys.maxsize, on_bad=on_bad, loads=loads)

    def _items(self, on_bad: Callable[[str], None]) -> Iterator[tuple[int, Row]]:
        if self.fault:
            raise DataError(f"{self.path}: {self.fault}.")
        for number, item in enumerate(self.document, start=1):
            if isinstance(item, dict):
                yield number, item
            else:
                on_bad(f"{self.place(number)}: expected a JSON object, found {shown(item)}.")


def lenient_json(text: bytes) -> Any:
    """`text` as JSON; NaN, Infinity and lone surrogates pass, and whole numbers beyond 64 bits become floats.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text, parse_int=_whole_number)
        except (ValueError, RecursionError):
            pass
        raise


def _whole_number(digits: str) -> int | float:
    number = int(digits) if len(digits) <= 20 else None
    return number if number is not None and -(2**63) <= number < 2**64 else float(digits)


Looked = tuple[Kind, bytes, tuple[Row, ...], Any, str]


def _look(path: Path) -> Looked:
    if path.is_dir():
        return "folder", b"", (), None, ""
    if path.is_fifo():
        raise DataError(f"{path}: is not a regular file but a pipe. Save it to a file first.")
    with open_binary(path) as file, reading(path):
        head = file.read(HEAD)
        if b"\n" not in head and head.removeprefix(BOM).lstrip().startswith(b"{"):
            head += file.readline(LONGEST_LINE)
        more = file.read(HEAD) if len(head) >= HEAD else b""
    head = head.removeprefix(BOM)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip", head, (), None, ""
    if head[:4] == b"PAR1":
        return "parquet", head, _first_of_table(path, "parquet"), None, ""
    if not head.strip():
        raise DataError(f"{path}: is empty. Expected one JSON object a line, with at least 'id' and 'score'.")
    return _look_at_text(path, head, more)


def _look_at_text(path: Path, head: bytes, more: bytes) -> Looked:
    first = head.lstrip()[:1]
    if first == b"[":
        document, fault = _document(path)
        items = document if isinstance(document, list) else []
        rows = tuple(islice((item for item in items if isinstance(item, dict)), FIRST_ROWS))
        return "array", head, rows, items, fault
    lines = [line for line in head.splitlines() if line.strip()]
    objects = tuple(_objects(lines))
    if first == b"{" and not objects:
        document, fault = _document(path)
        if isinstance(document, dict):
            return "object", head, (document,), document, ""
        return "lines", head, (), None, ""
    if len(objects) == len(lines) == 1 and not more.strip():
        return "object", head, objects, objects[0], ""
    if first != b"{" and not objects and _is_table(lines[0]):
        return "csv", head, _first_of_table(path, "csv"), None, ""
    return "lines", head, objects, None, ""


def _document(path: Path) -> tuple[Any, str]:
    """The whole file as JSON, or why it is none."""
    with open_binary(path) as file, reading(path):
        text = file.read(LARGEST_DOCUMENT + 1)
    if len(text) > LARGEST_DOCUMENT:
        return None, f"it is one JSON document of more than {LARGEST_DOCUMENT:,} bytes"
    try:
        return lenient_json(text.removeprefix(BOM)), ""
    except ValueError as error:
        return None, f"it is not valid JSON ({shown(str(error), 100)[1:-1]})"


def _objects(lines: list[bytes]) -> Iterator[Row]:
    for line in lines:  # the last may be cut off, and then is no JSON; an indented one belongs to a larger document
        if line.startswith(b"{"):
            try:
                value = lenient_json(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _is_table(first: bytes) -> bool:
    from flipguard.evaluate.tables import delimiter_of

    return delimiter_of(first) is not None


def _first_of_table(path: Path, kind: Literal["csv", "parquet"]) -> tuple[Row, ...]:
    from flipguard.evaluate.tables import read_csv, read_parquet

    rows = read_csv(path, lambda _: None) if kind == "csv" else read_parquet(path)
    return tuple(row for _, row in islice(rows, FIRST_ROWS))
