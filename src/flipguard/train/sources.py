"""Where rows come from: local files and folders, hub data sets, each row with its number and its line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from flipguard.errors import DataError, shown
from flipguard.files import LONGEST_LINE, open_binary, read_jsonl, reading
from flipguard.records import Row
from flipguard.train.dataspec import SHORT, SourceSpec
from flipguard.weights import looks_local

PARQUET_ROWS = 2_000  # read at a time


class Numbered(NamedTuple):
    """A row, which it is in its source, counted from 0, and the line it stands on, counted from 1; 0 has no line."""

    number: int
    line: int
    row: Row


def read_rows(source: SourceSpec, *, streaming: bool = False) -> Iterator[Numbered]:
    """Yield the rows of a source one by one; no file is held in memory whole, but for a JSON array.

    Args:
        source: a file (.jsonl, .ndjson, .json, .csv, .tsv, .parquet, each also .gz), a folder or a hub data set.
        streaming: read a hub data set as it comes, without storing it.

    Raises:
        DataError: the source does not exist or cannot be read.
    """
    path = local_path(source)
    rows = _hub(source, streaming=streaming) if path is None else _local(source, path)
    yield from islice(rows, source.max_rows)


def local_path(source: SourceSpec) -> Path | None:
    """The file or folder that the source means, or None for a hub data set.

    Raises:
        DataError: it can only be a file, and there is none, or of a format that is not read.
    """
    path = Path(source.path).expanduser()
    if path.exists() and (source.name or source.revision):
        raise DataError(f"{source.path}: is local, so it has no name or revision. Remove them.")
    if path.is_dir():
        return path
    if path.exists() or looks_local(source.path) or reader_of(path):
        if reader_of(path) is None:
            raise DataError(
                f"{source.path}: this format is not read here. Choose one of: {', '.join(READERS)}, each also .gz, "
                "a folder, or a hub id."
            )
        return path
    return None


def how_many(source: SourceSpec) -> int | None:
    """How many rows there are, where that is found out in a moment."""
    path = local_path(source)
    if path is None or path.is_dir():
        return None
    if reader_of(path) is read_jsonl:
        with open_binary(path) as file, reading(path):
            count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return count if source.max_rows is None else min(count, source.max_rows)
    return None


def reader_of(path: Path) -> Callable[[Path], Iterator[tuple[int, Row]]] | None:
    """What reads a file with this ending."""
    return READERS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def parted(source: SourceSpec) -> SourceSpec:
    """A hub id with its revision and split taken off: `owner/name@revision:split`."""
    match = SHORT.fullmatch(source.path)
    if match is None:
        raise DataError(f"{source.path}: no such file, and no name of a hub data set (owner/name@revision:split).")
    said = {name: value for name, value in match.groupdict().items() if value and name != "path"}
    twice = next((name for name in said if getattr(source, name) is not None), None)
    if twice:
        raise DataError(f"{source.path}: says its {twice} twice. Say it in the path or beside it.")
    revision, split = said.get("revision", source.revision), said.get("split", source.split)
    return replace(source, path=match["path"], revision=revision, split=split)


def hub_data(source: SourceSpec, *, streaming: bool) -> Any:
    """The data set of a hub id, or of a folder, as `datasets` loads it."""
    import datasets

    datasets.disable_progress_bars()
    try:
        if any((Path(source.path) / saved).is_file() for saved in ("state.json", "dataset_dict.json")):
            return datasets.load_from_disk(source.path)
        return datasets.load_dataset(
            source.path, source.name, split=source.split or "train", revision=source.revision, streaming=streaming
        )
    except Exception as error:  # noqa: BLE001 - the hub client raises dozens of types; all mean "not to be had"
        reason = " ".join(str(error).split()) or type(error).__name__
        where = "cannot be read as a data set" if Path(source.path).is_dir() else "no such file, and no such data set"
        raise DataError(f"{source}: {where} ({shown(reason, 200)}).") from None


def _hub(source: SourceSpec, *, streaming: bool) -> Iterator[Numbered]:
    for number, row in enumerate(hub_data(parted(source), streaming=streaming)):
        yield Numbered(number, 0, row)


def _local(source: SourceSpec, path: Path) -> Iterator[Numbered]:
    if path.is_dir():
        for number, row in enumerate(_chosen_split(source, hub_data(source, streaming=False))):
            yield Numbered(number, 0, row)
        return
    if source.split:
        raise DataError(f"{source.path}: is a file, so it has no split. Remove it.")
    reader = reader_of(path)
    assert reader is not None  # noqa: S101 - local_path has seen to it
    for number, (line, row) in enumerate(reader(path)):
        yield Numbered(number, line, row)


def _chosen_split(source: SourceSpec, data: Any) -> Any:
    """A folder that `save_to_disk` wrote holds one data set, or several by their split."""
    if not isinstance(data, dict):
        return data
    if source.split in data:
        return data[source.split]
    raise DataError(f"{source}: holds the splits {', '.join(data)}. Choose one of them with split.")


def _json(path: Path) -> Iterator[tuple[int, Row]]:
    """One array of objects; or, as some data sets have it, one object a line under this name."""
    with open_binary(path) as file, reading(path):
        content = file.read()
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from read_jsonl(path)
        return
    try:
        rows = orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg.split(':')[0]}).") from None
    yield from _objects(path, rows)


def _objects(path: Path, rows: Iterable[Any]) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}[{number}]: expected an object, found {shown(row)}.")
        yield 0, row


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    """Every cell a text; a list of messages in a cell is JSON."""
    csv.field_size_limit(LONGEST_LINE)
    line = 0
    with open_binary(path) as binary, reading(path), io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        try:
            cells = csv.reader(file, delimiter="\t" if ".tsv" in path.name.lower() else ",", strict=True)
            names = next(cells, [])
            line = cells.line_num
            for row in cells:
                if row and len(row) != len(names):
                    raise DataError(f"{path}:{line + 1}: {len(row)} cells under {len(names)} names.")
                if row:
                    yield line + 1, {name: _cell(cell) for name, cell in zip(names, row, strict=True)}
                line = cells.line_num
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not in UTF-8 ({error}). Save it as UTF-8.") from None
        except csv.Error as error:
            raise DataError(f"{path}:{line + 1}: not valid CSV ({error}).") from None


def _cell(cell: str) -> Any:
    if cell.startswith(("[{", "{")):
        try:
            return orjson.loads(cell)
        except orjson.JSONDecodeError:
            return cell
    return cell


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_binary(path) as file, pyarrow.parquet.ParquetFile(pyarrow.PythonFile(file, "r")) as table:
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield 0, {name: _finite(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: is not a readable Parquet file ({shown(str(error), 120)[1:-1]}).") from None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
