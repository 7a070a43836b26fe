"""How files come in: what is seen of a file before its format is known, and the rules by which its rows are taken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

import orjson

from flipguard.errors import DataError, shown
from flipguard.evaluate.fields import key_of
from flipguard.evaluate.runs import Key, Metric
from flipguard.files import open_binary, read_jsonl
from flipguard.records import Row

Item = TypeVar("Item")
Duplicates = Literal["error", "first", "last"]
DUPLICATES: tuple[Duplicates, ...] = get_args(Duplicates)
HEAD = 65_536  # bytes looked at to recognise a format; a longer first line is read whole, up to LONGEST_LINE
LONGEST_LINE = 16_777_216


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder of unknown format: its first bytes, unpacked, and the JSON objects on its first lines."""

    path: Path
    head: bytes
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, path: Path) -> Source:
        """Look at `path`; a folder has neither head nor rows, a pipe cannot be looked at twice and is refused."""
        if path.is_dir():
            return cls(path, b"", ())
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not a regular file but a pipe or device. Save it to a file first.")
        with open_binary(path) as file:
            try:
                head = file.read(HEAD)
                head += b"" if b"\n" in head else file.readline(LONGEST_LINE)
            except (OSError, EOFError) as error:
                raise DataError(f"{path}: cannot be read ({error}).") from None
        if not head.strip():
            raise DataError(f"{path}: is empty. Expected one JSON object a line, with at least 'id' and 'score'.")
        return cls(path, head, tuple(_objects(head.removeprefix(b"\xef\xbb\xbf"))))

    def why_no_rows(self) -> str:
        """Why there is no JSON object on the first lines, for a format that needs one."""
        if self.path.is_dir():
            return "it is a folder"
        if self.head.lstrip()[:1] == b"[":
            return "it is one JSON array, not an object a line"
        first = self.head.splitlines()[0].strip()
        return f"its first line is not a JSON object: {shown(first, 40)}"


@dataclass(slots=True)
class BadLines:
    """The malformed lines met so far; more than `limit` end the reading."""

    limit: int = 0
    told: list[str] = field(default_factory=list)

    def meet(self, message: str) -> None:
        """Count a malformed line, or raise what it says if the limit is used up."""
        if len(self.told) >= self.limit:
            used_up = f" More than the {self.limit} of --skip-bad." if self.limit else ""
            raise DataError(message + used_up)
        self.told.append(message)


@dataclass(frozen=True, slots=True)
class Intake:
    """The rules for taking rows: which of two with one key to keep, which grade to read, how many may be bad."""

    duplicates: Duplicates = "error"
    metric: Metric | None = None
    bad: BadLines = field(default_factory=BadLines)


class Shelf(Generic[Item]):
    """Items by key, in the order of the file; a key that comes twice follows the rule of the intake."""

    def __init__(self, path: Path, rule: Duplicates) -> None:
        self.items: dict[Key, Item] = {}
        self.duplicates = 0
        self._path = path
        self._rule = rule
        self._lines: dict[Key, int] = {}

    def put(self, key: Key, number: int, item: Item) -> None:
        """Keep `item` from line `number` under `key`."""
        if key in self.items:
            if self._rule == "error":
                raise DataError(
                    f"{self._path}:{number}: id {shown(key[0])}, repeat {key[1]} was there before, in line "
                    f"{self._lines[key]}. Number repeated samples with 'repeat', or choose --duplicates first or last."
                )
            self.duplicates += 1
            if self._rule == "first":
                return
        self.items[key] = item
        self._lines[key] = number


def shelve(path: Path, intake: Intake, parse: Callable[[Row], Item]) -> Shelf[Item]:
    """Read the JSONL file `path` row by row; a line that cannot be parsed is bad, and named with file and line."""
    shelf: Shelf[Item] = Shelf(path, intake.duplicates)
    for number, row in _rows(path, intake.bad):
        try:
            key, item = key_of(row), parse(row)
        except DataError as error:
            intake.bad.meet(f"{path}:{number}: {error}")
            continue
        shelf.put(key, number, item)
    return shelf


def _rows(path: Path, bad: BadLines) -> Iterator[tuple[int, Row]]:
    return read_jsonl(path, skip_bad=sys.maxsize, on_bad=bad.meet)  # `bad` itself ends the reading at its limit


def _objects(head: bytes) -> Iterator[Row]:
    for line in head.splitlines():  # the last may be cut off, and then is no JSON
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield value
