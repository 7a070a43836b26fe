"""Texts that stay in their file: only where each row begins is kept, and a text is read again when it is asked for."""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import overload

import orjson

from flipguard.errors import DataError
from flipguard.records import Row

Texts = Sequence[str | None]


class StoredRows:
    """The rows of a plain JSONL file by the place where they begin; the last one read is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path)
        self._map: mmap.mmap | None = None
        self._last: tuple[int, Row] = (-1, {})

    def __getstate__(self) -> dict[str, object]:
        """Of what was read, nothing travels to another process."""
        return {**self.__dict__, "_map": None, "_last": (-1, {})}

    def at(self, offset: int) -> Row:
        """The row whose line begins at `offset`.

        Raises:
            DataError: the file is not what it was when it was read first.
        """
        if self._last[0] != offset:
            self._last = offset, self._read(offset)
        return self._last[1]

    def _read(self, offset: int) -> Row:
        if self._map is None:
            if _state(self._path) != self._state:
                raise DataError(f"{self._path}: changed while it was compared. Compare again when it is complete.")
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map.seek(offset)
        line = self._map.readline()  # several times as fast as to find its end
        return orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))  # type: ignore[no-any-return]


class StoredTexts(Sequence[str | None]):
    """One text of each row, read when it is asked for."""

    def __init__(self, rows: StoredRows, offsets: array[int], text_of: Callable[[Row], str | None]) -> None:
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
        return self._text_of(self._rows.at(self._offsets[index]))

    def take(self, rows: Iterable[int]) -> StoredTexts:
        """The texts of the rows number `rows`."""
        return StoredTexts(self._rows, array("Q", (self._offsets[row] for row in rows)), self._text_of)


def taken(texts: Texts, rows: Iterable[int]) -> Texts:
    """The texts of the rows number `rows`, read where they were not yet."""
    return texts.take(rows) if isinstance(texts, StoredTexts) else [texts[row] for row in rows]


def encoded(texts: Sequence[str]) -> list[bytes]:
    """The texts in UTF-8, lone surrogates too."""
    try:
        return list(map(str.encode, texts))
    except UnicodeEncodeError:
        return [text.encode("utf-8", "surrogatepass") for text in texts]


def _state(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)  # noqa: PTH116 - all three at once
    return found.st_size, found.st_mtime_ns, found.st_ino
