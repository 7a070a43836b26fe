"""Tables as rows: CSV with any of three delimiters, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, shown
from flipguard.files import LONGEST_LINE, open_binary, reading
from flipguard.records import Row

DELIMITERS = (",", ";", "\t")
WORDS = {"true": True, "false": False}
WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
NUMBERS = ("score", "repeat")  # `id` may be a number, text stays text


def delimiter_of(header: bytes) -> str | None:
    """What separates the names in `header`; None where they do not look like those of our rows."""
    try:
        text = header.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    for delimiter in DELIMITERS:
        if "id" in (name.strip().strip('"') for name in text.split(delimiter)):
            return delimiter
    return None


def read_csv(path: Path, on_bad: Callable[[str], None]) -> Iterator[tuple[int, Row]]:
    """Yield `(line number, row)` for each row of a CSV file with a header; an empty cell is null.

    Ids that are whole numbers become numbers, as they are in JSON; true and false become booleans in columns other than
    text; `score` and `repeat` become numbers.
    """
    csv.field_size_limit(LONGEST_LINE)
    number = 0
    with open_binary(path) as binary, reading(path), io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        try:
            header = file.readline()
            rows = csv.reader(file, delimiter=delimiter_of(header.encode()) or ",", strict=True)
            file.seek(0)
            names, number = _names(path, next(rows, [])), rows.line_num
            for cells in rows:
                number = rows.line_num
                if len(cells) == len(names):
                    yield number, {name: _value(name, cell) for name, cell in zip(names, cells, strict=True)}
                elif cells:
                    on_bad(f"{path}:{number}: {len(cells)} cells under {len(names)} names.")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not in UTF-8 ({error}). Save it as UTF-8.") from None
        except csv.Error as error:
            raise DataError(f"{path}:{number + 1}: not valid CSV ({error}). Is a quote left open?") from None


def _names(path: Path, header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: two columns are named {shown(twice[0])}. Give each its own name.")
    return names


def _value(name: str, cell: str) -> Any:
    if cell == "":
        return None
    if name == "id":
        return int(cell) if WHOLE.fullmatch(cell) else cell
    if name in ("prompt", "completion", "error", "category", "cluster", "model"):
        return cell
    word = WORDS.get(cell.strip().lower())
    return word if word is not None else _number(cell)


def _number(cell: str) -> Any:
    try:
        number = float(cell)
    except ValueError:
        return cell
    return int(number) if WHOLE.fullmatch(cell) else number


def read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield `(row number, row)` for each row of a Parquet file; NaN, pandas' word for nothing, is null."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{path}: is a Parquet file, which needs pyarrow. Install it with: pip install 'flipguard[parquet]'"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=10_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {str(name): _finite(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: is not a readable Parquet file ({shown(str(error), 120)[1:-1]}).") from None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
