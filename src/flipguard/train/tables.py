"""Tokenized sources on disk: one flat array of token ids, one of columns, found again by a fingerprint.

They lie in `$FLIPGUARD_CACHE/tokens/FINGERPRINT`. The fingerprint is over the bytes of the data, the tokenizer, its
template and the code that reads them, so a table can never be stale; deleting it costs reading the source once.
Arrays are mapped, not loaded: rows come from the disk when they are asked for.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import flipguard.train
from flipguard.errors import DataError
from flipguard.records import RowId
from flipguard.train.caches import cache_folder
from flipguard.train.tokenizing import COLUMNS, Part

FILES = ("told.json", "columns.npy", "tokens.bin")
DIGEST = "sha256"  # of the files above, so that no damage is taken for data
MOST_REASONS = 1_000  # malformed rows whose reasons are kept; the others are counted
CODE = ("dataspec.py", "sources.py", "texts.py", "tokenizing.py", "faults.py", "tables.py", "formats/*.py")


@dataclass(frozen=True)
class Table:
    """A source as token ids.

    Args:
        columns: [N] of COLUMNS.
        starts: [N + 1] where each row's tokens begin in `tokens`.
        tokens: all token ids, int32: of each row the prompt, then its completions.
        ids: what the rows call themselves; empty where none does.
        reasons: why malformed rows are, by their numbers.
        form: the name of the format.
        chat: whether the rows are conversations.
    """

    columns: NDArray[Any]
    starts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    ids: list[RowId | None]
    reasons: dict[int, str]
    form: str
    chat: bool

    def parts(self, row: int) -> tuple[list[int], ...]:
        """Prompt and completions of a row."""
        columns = self.columns[row]
        lengths = [int(columns["prompt"]), int(columns["first"]), int(columns["second"])]
        cuts = np.cumsum([self.starts[row], *lengths])
        pieces = [self.tokens[left:right].tolist() for left, right in pairwise(cuts)]
        return tuple(pieces if lengths[2] else pieces[:2])


def fingerprint(said: dict[str, Any], tokenizer: Any) -> str:
    """SHA-256 of what decides a table: what is said of the source, the tokenizer with its template, and our code."""
    import tokenizers
    import transformers

    digest = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS))
    digest.update(f"{transformers.__version__} {tokenizers.__version__} {type(tokenizer).__name__}".encode())
    digest.update(repr((tokenizer.chat_template, tokenizer.eos_token, sorted(tokenizer.init_kwargs.items()))).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    folder = Path(flipguard.train.__file__).parent
    for pattern in CODE:
        for path in sorted(folder.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def cached(key: str) -> Table | None:
    """The table of this fingerprint; None where there is none, or a damaged one."""
    folder = _folder() / key
    try:
        if (folder / DIGEST).read_text(encoding="ascii") != _digest(folder):
            return None
        told = orjson.loads((folder / "told.json").read_bytes())
        columns = np.load(folder / "columns.npy", mmap_mode="r")
        tokens = _mapped(folder / "tokens.bin")
        starts = _starts(columns)
        if columns.dtype != COLUMNS or starts[-1] != len(tokens) or told["rows"] != len(columns):
            return None
        reasons = {int(row): str(why) for row, why in told["reasons"]}
        return Table(columns, starts, tokens, told["ids"], reasons, told["form"], told["chat"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None  # absent, or damaged: made anew


def write(key: str, parts: Iterable[Part], *, form: str, chat: bool) -> Table:
    """Write the parts as they come and give them back as a table; a kill leaves nothing under this fingerprint.

    Of two processes that write the same, the first one's table stays.
    """
    home = _folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{key[:16]}.", dir=home))
    except OSError as error:
        raise DataError(
            f"{home}: cannot be written ({error.strerror}). Set FLIPGUARD_CACHE to a folder you may write to."
        ) from None
    try:
        _fill(folder, parts, {"form": form, "chat": chat})
        _put(folder, home / key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = cached(key)
    if table is None:
        raise DataError(f"{home / key}: cannot be read back. Remove it, or set FLIPGUARD_CACHE to another folder.")
    return table


def _fill(folder: Path, parts: Iterable[Part], told: dict[str, Any]) -> None:
    columns: list[NDArray[Any]] = [np.empty(0, COLUMNS)]
    ids: list[RowId | None] = []
    reasons: list[tuple[int, str]] = []
    with (folder / "tokens.bin").open("wb") as file:
        for part in parts:
            columns.append(part.rows)
            part.tokens.tofile(file)
            ids += part.ids
            reasons += list(part.reasons.items())[: MOST_REASONS - len(reasons)]
    table = np.concatenate(columns)
    np.save(folder / "columns.npy", table)
    named = ids if any(name is not None for name in ids) else []
    (folder / "told.json").write_bytes(orjson.dumps({**told, "rows": len(table), "ids": named, "reasons": reasons}))
    (folder / DIGEST).write_text(_digest(folder), encoding="ascii")


def _digest(folder: Path) -> str:
    """One SHA-256 over the files of a table."""
    digest = hashlib.sha256()
    for name in FILES:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _put(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError:  # another process was first, or an earlier one is damaged
        if cached(place.name) is None:
            shutil.rmtree(place, ignore_errors=True)
            folder.rename(place)


def _starts(columns: NDArray[Any]) -> NDArray[np.int64]:
    lengths = columns["prompt"].astype(np.int64) + columns["first"] + columns["second"]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _mapped(path: Path) -> NDArray[np.int32]:
    empty = path.stat().st_size == 0  # which cannot be mapped
    return np.empty(0, np.int32) if empty else np.memmap(path, np.int32, "r")


def _folder() -> Path:
    return cache_folder() / "tokens"
