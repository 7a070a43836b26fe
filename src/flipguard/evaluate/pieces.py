"""A large file of rows read by several processes, each a piece of whole lines; no text of it is kept.

This process reads the first piece; the others are read by processes of their own, which send back columns. A piece that
cannot be read there is read here.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, BinaryIO, cast

import orjson

from flipguard import files
from flipguard.errors import DataError
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.rows import Rows
from flipguard.evaluate.source import BOM, Source
from flipguard.files import is_plain, parse_line, reading
from flipguard.records import Row

SMALLEST = 1 << 25  # bytes; a smaller piece is not worth a process
BLOCK = 1 << 20  # bytes read at once

Taker = Callable[[Row, int, int | None, dict[str, Rows]], None]  # row, line, place, rows by group


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines of `path` that begin at byte `start` or later and before `stop`.

    `take` takes a row; a reader may stop after more than `most` bad lines.
    """

    path: Path
    start: int
    stop: int
    take: Taker
    most: int


@dataclass(slots=True)
class Found:
    """What a piece holds: rows by group, what is wrong with bad lines, and how many lines there are."""

    groups: dict[str, Rows] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    lines: int = 0


def collect(source: Source, intake: Intake, take: Taker) -> dict[str, Rows]:
    """All rows of `source` by group, the groups in the order of the file.

    Args:
        source: what to read.
        intake: how many rows may be bad.
        take: puts a row where it belongs; a DataError makes it a bad row. It may travel to other processes.
    """
    groups: dict[str, Rows] = {}
    if source.kind == "lines" and is_plain(source.path):
        before = 0
        for found in read_pieces(source.path, take, intake.bad.limit - len(intake.bad.told)):
            for message in found.bad:
                intake.bad.meet(message)
            for name, rows in found.groups.items():
                groups.setdefault(name, Rows()).extend(rows, before)
            before += found.lines
        return groups
    for number, row in source.each(intake.bad.meet):
        try:
            take(row, number, None, groups)
        except DataError as error:
            intake.bad.meet(f"{source.place(number)}: {error}")
    return groups


def read_pieces(path: Path, take: Taker, most: int) -> Iterator[Found]:
    """Read a plain file of JSON lines, its pieces in their order; `most` lines may be bad."""
    pieces = _cut(path, take, most)
    readers = [_started(piece) for piece in pieces[1:]]
    try:
        yield read_piece(pieces[0])
        for piece, reader in zip(pieces[1:], readers, strict=True):
            yield _received(reader) or read_piece(piece)
    finally:
        for reader in readers:
            if reader is not None:
                reader.kill()
                cast("IO[bytes]", reader.stdout).close()
                reader.wait()


def read_piece(piece: Piece) -> Found:
    """Read one piece in this process.

    Raises:
        DataError: a line is longer than any row can be.
    """
    found, at, number, before = Found(), piece.start, 0, -1
    with piece.path.open("rb", buffering=BLOCK) as file, reading(piece.path):
        file.seek(at)
        for line in iter(partial(file.readline, files.LONGEST_LINE + 1), b""):
            if at >= piece.stop or len(found.bad) > piece.most:
                break
            number += 1
            if len(line) > files.LONGEST_LINE:
                place = f"{piece.path}:{_lines_before(piece) + number}"
                raise DataError(f"{place}: is longer than {files.LONGEST_LINE:,} bytes.")
            try:
                row = _quickly(line)
                if row is None:
                    before = _lines_before(piece) if before < 0 else before
                    row = parse_line(piece.path, before + number, line.removeprefix(BOM) if at == 0 else line)
                if row is not None:
                    piece.take(row, number, at, found.groups)
            except DataError as error:
                before = _lines_before(piece) if before < 0 else before
                place = f"{piece.path}:{before + number}: "
                found.bad.append(place + str(error).removeprefix(place))
            at += len(line)
    found.lines = number
    return found


def serve() -> None:
    """Read the piece that comes in on the standard input, and send what was found: the whole life of a reader."""
    gc.disable()
    piece = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    sys.stdout.buffer.write(pickle.dumps(read_piece(piece), pickle.HIGHEST_PROTOCOL))


def _quickly(line: bytes) -> Row | None:
    """The row on a line where nothing is wrong with it."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if type(row) is dict else None


def _cut(path: Path, take: Taker, most: int) -> list[Piece]:
    """As many pieces as there are processors, or as are large enough."""
    size = path.stat().st_size
    many = max(1, min(_processors(), size // SMALLEST))
    with path.open("rb") as file, reading(path):
        cuts = [0, *(_line_after(file, size * number // many) for number in range(1, many)), size]
    return [Piece(path, start, stop, take, most) for start, stop in pairwise(cuts)]


def _line_after(file: BinaryIO, at: int) -> int:
    file.seek(at - 1)
    file.readline(files.LONGEST_LINE)
    return file.tell()


def _lines_before(piece: Piece) -> int:
    """How many lines stand before a piece: asked only where something is wrong in it."""
    lines, left = 0, piece.start
    with piece.path.open("rb") as file:
        while left and (block := file.read(min(left, BLOCK))):
            lines, left = lines + block.count(b"\n"), left - len(block)
    return lines


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _started(piece: Piece) -> subprocess.Popen[bytes] | None:
    """A process that reads a piece; None where none can be started."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
    try:
        reader = subprocess.Popen(  # noqa: S603 - our own code
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        with cast("IO[bytes]", reader.stdin) as task:
            task.write(pickle.dumps(piece))
    except (OSError, pickle.PicklingError):
        return None
    return reader


def _received(reader: subprocess.Popen[bytes] | None) -> Found | None:
    """What a reader found; None where it failed."""
    if reader is None:
        return None
    with cast("IO[bytes]", reader.stdout) as told:
        content = told.read()
    return pickle.loads(content) if reader.wait() == 0 else None  # noqa: S301 - from a process of our own
