"""What training sees: rows of token ids, measured against the model's context, with a count of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from flipguard.errors import DataError
from flipguard.records import RowId
from flipguard.train.dataspec import DataSpec, SourceSpec
from flipguard.train.faults import FAULTS
from flipguard.train.formats import Kind
from flipguard.train.intake import open_table
from flipguard.train.sampling import Rows, Selection, action, phrase, select, told
from flipguard.train.tables import Table

Named = str | SourceSpec | Sequence[SourceSpec]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A prompt and its completions as token ids; a pair has two completions, chosen before rejected.

    Prompt and completion are tokenized as one text and cut where the prompt's own tokens end, as a model sees them.
    `label` says of an unpaired row whether its completion is desirable; `id` is what the row calls itself.
    """

    place: str
    prompt: Sequence[int]
    completions: tuple[Sequence[int], ...]
    label: bool | None = None
    id: RowId | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest completion."""
        return len(self.prompt) + max(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class Read:
    """One source as it was read: its table, and what of it is trained on."""

    source: SourceSpec
    table: Table
    selection: Selection

    def place(self, row: int) -> str:
        """Where a row of the table stands in its source."""
        columns = self.table.columns[row]
        line = int(columns["line"])
        return f"{self.source}:{line}" if line else f"{self.source}[{int(columns['number'])}]"

    def row(self, row: int) -> TokenRow:
        """A row of the table."""
        prompt, *completions = self.table.parts(row)
        label = int(self.table.columns["label"][row])
        name = self.table.ids[row] if self.table.ids else None
        return TokenRow(self.place(row), prompt, tuple(completions), None if label < 0 else bool(label), name)


class TokenRows(Sequence[TokenRow]):
    """The rows of all sources, one source after the other; each is read from the mapped table when it is asked for."""

    def __init__(self, sources: Sequence[Read]) -> None:
        self._sources = sources
        self._ends = np.cumsum([len(item.selection.rows) for item in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        owner = int(np.searchsorted(self._ends, place, "right"))
        before = int(self._ends[owner - 1]) if owner else 0
        source = self._sources[owner]
        return source.row(int(source.selection.rows[place - before]))

    def __iter__(self) -> Iterator[TokenRow]:
        return (source.row(int(row)) for source in self._sources for row in source.selection.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[N] tokens of each prompt with its longest completion."""
        return np.concatenate([lengths_of(item.table, item.selection.rows) for item in self._sources])


@dataclass(frozen=True, slots=True)
class TokenData:
    """What training sees, and how many rows it does not see and why; `chat` says that they are conversations."""

    rows: Sequence[TokenRow]
    left_out: Counter[str] = field(default_factory=Counter)
    chat: bool = False

    def summary(self) -> str:
        """One line: "7,731 rows; left out: 269 with identical answers"."""
        return told(len(self.rows), "rows", self.left_out)


def load_pairs(sources: Named, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read preference pairs, in any format of docs/data.md.

    Args:
        sources: a path or hub id, or what the recipe says of one or several.
        spec: the rest of the recipe's `data`: limits in tokens, what becomes of faulty rows, split.
        tokenizer: of the model that will be trained.
        context: the longest sequence the model can read, in tokens; a row beyond it is an error.

    Raises:
        DataError: a row is malformed or longer than the model; or nothing is left to train on.
    """
    return _load(sources, spec, "pairs", tokenizer, context)


def load_unpaired(sources: Named, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read unpaired preferences: `prompt`, `completion` and `label`; a pair becomes a desirable and an undesirable row.

    Args and errors are those of `load_pairs`.
    """
    return _load(sources, spec, "unpaired", tokenizer, context)


def load_completions(sources: Named, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read supervised rows: `prompt` and `completion`, or `messages`, or the chosen half of preference pairs.

    Args and errors are those of `load_pairs`.
    """
    return _load(sources, spec, "supervised", tokenizer, context)


def read_sources(sources: Named, spec: DataSpec, kind: Kind, tokenizer: Any) -> list[Read]:
    """Each source with what of it is trained on; no fault stops here."""
    several = [SourceSpec(sources)] if isinstance(sources, str) else sources
    several = [several] if isinstance(several, SourceSpec) else several
    read = [(source, open_table(source, spec, kind, tokenizer)) for source in several]
    return [Read(source, table, select(table, spec, source)) for source, table in read]


def sound_sources(sources: Named, spec: DataSpec, kind: Kind, tokenizer: Any) -> list[Read]:
    """Each source with what of it is trained on.

    Raises:
        DataError: a row has a fault that stops; texts and conversations are mixed; or nothing is left to train on.
    """
    read = read_sources(sources, spec, kind, tokenizer)
    for item in read:
        _stop_at_faults(item, spec)
    _chat(read)
    if not any(len(item.selection.rows) for item in read):
        names = ", ".join(str(item.source) for item in read)
        raise DataError(f"{names}: nothing to train on ({told(0, 'rows', left_out(read))}).")
    return read


def left_out(read: Sequence[Read]) -> Counter[str]:
    """How many rows are not trained on, by reason."""
    return sum((item.selection.left_out for item in read), Counter())


def _load(sources: Named, spec: DataSpec, kind: Kind, tokenizer: Any, context: int | None) -> TokenData:
    read = sound_sources(sources, spec, kind, tokenizer)
    for item in read:
        _check_fits(item, context)
    return TokenData(TokenRows(read), left_out(read), _chat(read))


def _chat(read: Sequence[Read]) -> bool:
    kinds = {item.table.chat for item in read if len(item.selection.rows)}
    if len(kinds) > 1:
        chats = next(str(item.source) for item in read if item.table.chat)
        raise DataError(f"{chats}: has conversations, other sources texts. data.chat: true makes texts conversations.")
    return kinds == {True}


def _stop_at_faults(item: Read, spec: DataSpec) -> None:
    rows = item.selection.considered
    for fault, (key, _, words) in FAULTS.items():
        bad = rows[(item.selection.faults[rows] & fault) != 0]
        if action(fault, spec) != "stop" or not len(bad):
            continue
        first = int(bad.min())
        why = item.table.reasons.get(int(item.table.columns["number"][first]))
        others = f" {len(bad) - 1:,} more such rows; --check-data lists all." if len(bad) > 1 else ""
        raise DataError(
            f"{item.place(first)}: {why or phrase(words, spec)}.{others} "
            f"Mend the row, or let data.faults.{key} be leave_out."
        )


def lengths_of(table: Table, rows: Rows) -> NDArray[np.int64]:
    """Tokens of the prompts of these rows, each with its longest completion."""
    columns = table.columns[rows]
    return columns["prompt"].astype(np.int64) + np.maximum(columns["first"], columns["second"])


def _check_fits(item: Read, context: int | None) -> None:
    lengths = lengths_of(item.table, item.selection.rows)
    if context is None or not len(lengths) or lengths.max() <= context:
        return
    row = int(item.selection.rows[int(np.argmax(lengths > context))])
    prompt = int(item.table.columns["prompt"][row])
    raise DataError(
        f"{item.place(row)}: prompt ({prompt} tokens) and completion ({item.row(row).length - prompt}) exceed "
        f"the model's context of {context}. Lower data.max_prompt_tokens or data.max_completion_tokens; "
        "longer rows are then left out."
    )
