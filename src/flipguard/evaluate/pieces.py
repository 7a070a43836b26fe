"""A large file of rows read by several processes, each a piece of whole lines; no text of it is kept.

This process reads the first piece; the others are read by processes of their own, which send back columns. A piece that
cannot be read there is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from itertools import accumulate, chain, compress, pairwise
from pathlib import Path
from typing import BinaryIO

import orjson

from flipguard import files
from flipguard.errors import DataError
from flipguard.evaluate.columns import batched
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.rows import Rows
from flipguard.evaluate.source import BOM, Source
from flipguard.evaluate.workers import Worker
from flipguard.files import is_plain, parse_line, reading
from flipguard.records import Row

SMALLEST = 1 << 25  # bytes; a smaller piece is not worth a process
BLOCK = 1 << 19  # bytes read at once
BATCH = 1_024  # rows taken at once

Taker = Callable[[Sequence[Row], Sequence[int], Sequence[int]], dict[str, Rows]]  # rows, lines, places to rows by group


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines of `path` that begin at byte `start` or later and before `stop`.

    `take` takes rows, `together` at once; a reader may stop after more than `most` bad lines.
    """

    path: Path
    start: int
    stop: int
    take: Taker
    most: int
    together: int = BATCH


@dataclass(slots=True)
class Found:
    """What was read: rows by group, in parts, how many lines there are, and which of them are bad, with the reason.

    `fault` is a line that ends the reading.
    """

    groups: dict[str, list[Rows]] = field(default_factory=dict)
    bad: list[tuple[int, str]] = field(default_factory=list)
    lines: int = 0
    fault: tuple[int, str] | None = None

    def take(self, take: Taker, rows: Sequence[Row], numbers: Sequence[int], places: Sequence[int]) -> None:
        """Take rows together; if something is wrong with one of them, one by one."""
        try:
            groups = take(rows, numbers, places) if rows else {}
        except DataError as error:
            if len(rows) == 1:
                self.bad.append((numbers[0], str(error)))
                return
            for at in range(len(rows)):
                one = slice(at, at + 1)
                self.take(take, rows[one], numbers[one], places[one])
            return
        for name, taken in groups.items():
            self.groups.setdefault(name, []).append(taken)


def collect(source: Source, intake: Intake, take: Taker) -> dict[str, Rows]:
    """All rows of `source` by group, the groups in the order of the file.

    Args:
        source: what to read.
        intake: how many rows may be bad.
        take: sorts rows into groups; a DataError makes one of them a bad row. It may travel to other processes.
    """
    if source.kind != "lines" or not is_plain(source.path):
        return _collected(source, intake, take)
    groups: dict[str, tuple[list[Rows], list[int]]] = {}
    before = 0
    for found in read_pieces(source.path, take, intake.bad.limit - len(intake.bad.told), intake.processes):
        for number, message in found.bad:
            intake.bad.meet(f"{source.place(before + number)}: {message}")
        if found.fault is not None:
            raise DataError(f"{source.place(before + found.fault[0])}: {found.fault[1]}")
        for name, parts in found.groups.items():
            rows, lines = groups.setdefault(name, ([], []))
            rows += parts
            lines += [before] * len(parts)
        before += found.lines
    return {name: Rows.joined(*parts) for name, parts in groups.items()}


def _collected(source: Source, intake: Intake, take: Taker) -> dict[str, Rows]:
    """All rows of a file that only this process can read."""
    found, rows, numbers = Found(), list[Row](), list[int]()

    def taken() -> None:
        found.take(take, rows, numbers, ())
        for number, message in found.bad:
            intake.bad.meet(f"{source.place(number)}: {message}")
        for held in (found.bad, rows, numbers):
            held.clear()

    def meet(message: str) -> None:
        taken()  # what is wrong with earlier rows is told first
        intake.bad.meet(message)

    for number, row in source.each(meet):
        rows.append(row)
        numbers.append(number)
        if len(rows) == BATCH:
            taken()
    taken()
    return {name: Rows.joined(parts) for name, parts in found.groups.items()}


def read_pieces(path: Path, take: Taker, most: int, processes: int) -> Iterator[Found]:
    """Read a plain file of JSON lines by several processes, its pieces in their order; `most` lines may be bad."""
    pieces = _cut(path, take, most, processes)
    with ExitStack() as stack:
        readers = [Worker(read_piece, piece, copied=True) for piece in pieces[1:]]
        for reader in readers:
            stack.callback(reader.stop)
        yield read_piece(pieces[0])
        yield from (reader.result() for reader in readers)


def read_piece(piece: Piece) -> Found:
    """Read one piece in this process, the rows of each group as one part."""
    found, at = Found(), piece.start
    with piece.path.open("rb", buffering=BLOCK) as file, reading(piece.path):
        file.seek(at)
        for lines in chain.from_iterable(_parted(block, piece.together) for block in _blocks(file, piece.stop - at)):
            _take_lines(piece, found, lines, at)
            at += sum(map(len, lines))
            if found.fault is not None or len(found.bad) > piece.most:
                break
    found.groups = {name: [Rows.joined(parts)] for name, parts in found.groups.items()}
    return found


def _blocks(file: BinaryIO, left: int) -> Iterator[list[bytes]]:
    """The next `left` bytes of `file` as whole lines, many at a time; the last line is read to its end."""
    rest = b""
    while left > 0 and len(rest) <= files.LONGEST_LINE and (read := file.read(min(left, max(BLOCK, len(rest))))):
        left -= len(read)
        lines = BytesIO(read).readlines()
        lines[0] = rest + lines[0]
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        yield lines
    if rest:
        yield [rest + file.readline(max(0, files.LONGEST_LINE + 1 - len(rest)))]


def _parted(lines: list[bytes], most: int) -> Iterable[Sequence[bytes]]:
    return ([lines] if lines else []) if len(lines) <= most else batched(lines, most)


def _take_lines(piece: Piece, found: Found, lines: Sequence[bytes], at: int) -> None:
    """Take the rows on the next lines, the first of which begins at byte `at`."""
    first, lengths = found.lines + 1, list(map(len, lines))
    if max(lengths) > files.LONGEST_LINE:
        whole = next(row for row, length in enumerate(lengths) if length > files.LONGEST_LINE)
        found.fault = first + whole, f"is longer than {files.LONGEST_LINE:,} bytes."
        lines = lines[:whole]
    found.lines += len(lines)
    numbers: Sequence[int] = range(first, found.lines + 1)
    places = list(accumulate(lengths[: len(lines)], initial=at))[:-1]
    rows = _quickly(lines)
    if rows is None:
        maybe = _carefully(piece.path, lines, found, at)
        there = [row is not None for row in maybe]
        rows = [row for row in maybe if row is not None]
        numbers, places = list(compress(numbers, there)), list(compress(places, there))
    found.take(piece.take, rows, numbers, places)
    found.bad.sort()


def _quickly(lines: Sequence[bytes]) -> list[Row] | None:
    """The rows on lines with which nothing is wrong."""
    try:
        rows = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    return rows if set(map(type, rows)) <= {dict} else None


def _carefully(path: Path, lines: Sequence[bytes], found: Found, at: int) -> list[Row | None]:
    """The row on each line, None where it is blank or bad; the first line begins at byte `at`."""
    rows: list[Row | None] = []
    for number, line in enumerate(lines, found.lines - len(lines) + 1):
        try:
            rows.append(parse_line(path, number, line.removeprefix(BOM) if at == 0 and not rows else line))
        except DataError as error:
            rows.append(None)
            found.bad.append((number, str(error).removeprefix(f"{path}:{number}: ")))
    return rows


def _cut(path: Path, take: Taker, most: int, processes: int) -> list[Piece]:
    """As many pieces as there are processes, or as are large enough."""
    size = path.stat().st_size
    many = max(1, min(processes, size // SMALLEST))
    with path.open("rb") as file, reading(path):
        cuts = [0, *(_line_after(file, size * number // many) for number in range(1, many)), size]
    return [Piece(path, start, stop, take, most) for start, stop in pairwise(cuts)]


def _line_after(file: BinaryIO, at: int) -> int:
    file.seek(at - 1)
    file.readline(files.LONGEST_LINE)
    return file.tell()
