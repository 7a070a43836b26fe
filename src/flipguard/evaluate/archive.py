"""Zip archives of JSON members, Zstandard ones too, unpacked in memory and never beyond a bound."""

from __future__ import annotations

import lzma
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, shown
from flipguard.evaluate.source import lenient_json

LARGEST_MEMBER = 536_870_912  # bytes, unpacked
LARGEST_WHOLE = 8_589_934_592  # bytes of all members that are read
ZSTANDARD = 93  # the number zip gives to it
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError)


def names(path: Path) -> list[str]:
    """The names of the members, in the order of the archive."""
    with _opened(path) as archive:
        return [info.filename for info in archive.infolist()]


def documents(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """Yield the name of each wanted member and the JSON it holds."""
    with _opened(path) as archive:
        chosen = [info for info in archive.infolist() if wanted(info.filename)]
        whole = sum(info.file_size for info in chosen)
        if whole > LARGEST_WHOLE:
            raise DataError(f"{path}: would unpack to {whole:,} bytes, more than {LARGEST_WHOLE:,}.")
        for info in chosen:
            if info.file_size > LARGEST_MEMBER:
                raise DataError(
                    f"{path}: {shown(info.filename)} would unpack to {info.file_size:,} bytes, more than "
                    f"{LARGEST_MEMBER:,}."
                )
            with archive.open(info) as member:
                content = member.read(info.file_size + 1)
            try:
                document = lenient_json(content)
            except ValueError as error:
                said = shown(str(error), 100)[1:-1]
                raise DataError(f"{path}: {shown(info.filename)} is not valid JSON ({said}).") from None
            yield info.filename, document


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; damage found while it is read becomes a DataError."""
    damage: tuple[type[Exception], ...] = DAMAGE
    try:
        with zipfile.ZipFile(path) as archive:
            packed = {info.compress_type for info in archive.infolist()}
            if ZSTANDARD not in packed or sys.version_info >= (3, 14):
                yield archive
                return
        reader, damage = _zstandard(path)
        with reader.ZipFile(path) as archive:
            yield archive
    except damage as error:
        raise DataError(
            f"{path}: is not a whole zip archive ({shown(str(error), 100)[1:-1]}). It may have been cut short."
        ) from None


def _zstandard(path: Path) -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        from backports.zstd import ZstdError
        from backports.zstd import zipfile as reader
    except ImportError:
        raise DataError(
            f"{path}: is packed with Zstandard. Install what unpacks it with: pip install backports.zstd"
        ) from None
    return reader, (*DAMAGE, reader.BadZipFile, ZstdError)
