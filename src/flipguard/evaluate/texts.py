"""Texts that stay in their file: only where each row begins is kept, and a text is read again when it is asked for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import orjson

from flipguard.errors import DataError
from flipguard.evaluate.picks import pick
from flipguard.records import Row

Texts = Sequence[str | None]


class StoredRows:
    """The rows of a plain JSONL file by the place where they begin; the `last` one read, at `last_at`, is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path)
        self._map: mmap.mmap | None = None
        self.last_at = -1
        self.last: Row = {}

    def __getstate__(self) -> dict[str, object]:
        """Of what was read, nothing travels to another process."""
        return {**self.__dict__, "_map": None, "last_at": -1, "last": {}}

    def at(self, offset: int) -> Row:
        """The row whose line begins at `offset`.

        Raises:
            DataError: the file is not what it was when it was read first.
        """
        if self.last_at != offset:
            self.last, self.last_at = self._read(offset), offset
        return self.last

    def _read(self, offset: int) -> Row:
        if self._map is None:
            if _state(self._path) != self._state:
                raise DataError(f"{self._path}: changed while it was compared. Compare again when it is complete.")
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map.seek(offset)
        line = self._map.readline()  # several times as fast as to find its end
        return orjson.loads(line if offset else line.removeprefix(b"\xef\xbb\xbf"))  # type: ignore[no-any-return]


class StoredTexts(Sequence[str | None]):
    """One text of each row, read when it is asked for."""

    def __init__(self, rows: StoredRows, offsets: Sequence[int], text_of: Callable[[Row], str | None]) -> None:
        self._rows = rows
        self._offsets = offsets
        self._text_of = text_of

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts | None:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        offset, rows = self._offsets[index], self._rows
        return self._text_of(rows.last if rows.last_at == offset else rows.at(offset))

    def __iter__(self) -> Iterator[str | None]:
        rows, text_of = self._rows, self._text_of
        for offset in self._offsets:
            yield text_of(rows.last if rows.last_at == offset else rows.at(offset))

    def take(self, rows: Sequence[int]) -> StoredTexts:
        """The texts of the rows number `rows`."""
        return StoredTexts(self._rows, pick(self._offsets, rows), self._text_of)


def taken(texts: Texts, rows: Sequence[int]) -> Texts:
    """The texts of the rows number `rows`, still to be read where they were not yet."""
    return texts.take(rows) if isinstance(texts, StoredTexts) else pick(texts, rows)


def _state(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)  # noqa: PTH116 - all three at once
    return found.st_size, found.st_mtime_ns, found.st_ino
