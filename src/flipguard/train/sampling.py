"""Which rows of a tokenized source are trained on: parts of a split, faults, weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flipguard.errors import DataError
from flipguard.train.dataspec import DataSpec, HoldOutSpec, SourceSpec, SplitSpec
from flipguard.train.faults import FAULTS, Fault
from flipguard.train.tables import Table
from flipguard.train.tokenizing import ELSEWHERE, RELABELLED

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What becomes of a source.

    Args:
        rows: those to train on, by their places in the table, as often as they come.
        considered: those of the chosen part, faulty ones too.
        faults: [N] the faults of every row of the table, with those that only the recipe's limits make.
        left_out: how many rows are not trained on, by reason.
    """

    rows: Rows
    considered: Rows
    faults: NDArray[np.int64]
    left_out: Counter[str]


def select(table: Table, spec: DataSpec, source: SourceSpec) -> Selection:
    """Apply the recipe to a source. Nothing here costs more than a moment, so none of it is part of a fingerprint."""
    left_out: Counter[str] = Counter()
    elsewhere = (table.columns["faults"] & ELSEWHERE) != 0
    if elsewhere.any():
        left_out["not asked for"] = int(elsewhere.sum())
    numbers = np.unique(table.columns["number"][~elsewhere])
    kept = _part(numbers, spec.split) if spec.split else numbers
    kept = _held(kept, source) if source.hold_out else kept
    considered = _rows_of(table, kept, elsewhere)
    if beyond := int((~elsewhere).sum()) - len(considered):
        left_out["of other parts"] = beyond
    faults = _with_limits(table, spec, considered)
    rows = _sound(considered, faults, spec, left_out)
    return Selection(_weighted(rows, source.weight, spec.seed, left_out), considered, faults, left_out)


def bounds(count: int, parts: tuple[float, ...]) -> list[int]:
    """Where the parts of `count` rows begin and end, rounded as DeepSpeed-Chat does.

    What rounding adds or loses in all is taken from or given to the first part.

    >>> bounds(10, (2, 4, 4)), bounds(11, (2, 4, 4))
    ([0, 2, 6, 10], [0, 3, 7, 11])
    """
    sums = [0]
    for part in (share / sum(parts) for share in parts):
        sums.append(sums[-1] + round(part * count))
    return [0, *(place - (sums[-1] - count) for place in sums[1:])]


def _part(numbers: Rows, split: SplitSpec) -> Rows:
    """DeepSpeed-Chat's `get_raw_dataset_split_index`: numpy's legacy shuffle of all row numbers, cut in parts."""
    order = np.arange(len(numbers), dtype=np.uint32)
    np.random.RandomState(split.seed).shuffle(order)
    left, right = list(pairwise(bounds(len(numbers), split.parts)))[split.take - 1]
    return numbers[order[left:right]]


def _held(numbers: Rows, source: SourceSpec) -> Rows:
    """Rows held out as PRO draws them: Python's `random.sample` over their numbers."""
    said: HoldOutSpec | None = source.hold_out
    assert said is not None  # noqa: S101 - asked before
    if said.rows >= len(numbers):
        raise DataError(f"{source}: hold_out: {said.rows:,} of {len(numbers):,} rows leaves none. Lower it.")
    drawn = np.zeros(len(numbers), bool)
    drawn[Random(said.seed).sample(range(len(numbers)), said.rows)] = True  # noqa: S311 - reproducible, not secret
    return numbers[drawn if said.take == "held_out" else ~drawn]


def _rows_of(table: Table, numbers: Rows, elsewhere: NDArray[np.bool_]) -> Rows:
    """The table's rows of these rows of the source, in their order; an unpaired pair has two."""
    mine: Rows = np.flatnonzero(~elsewhere)
    theirs = table.columns["number"][mine]
    first, last = np.searchsorted(theirs, numbers, "left"), np.searchsorted(theirs, numbers, "right")
    runs = [np.arange(left, right) for left, right in zip(first, last, strict=True)] if len(mine) > len(numbers) else []
    return mine[np.concatenate(runs)] if runs else mine[first]


def _with_limits(table: Table, spec: DataSpec, considered: Rows) -> NDArray[np.int64]:
    """The faults of each row, with those that depend on the recipe's limits and on the other rows considered."""
    columns = table.columns
    faults = (columns["faults"] & ~(ELSEWHERE | RELABELLED)).astype(np.int64)
    faults[columns["prompt"] > spec.max_prompt_tokens] |= Fault.PROMPT_TOO_LONG
    longest = np.maximum(columns["first"], columns["second"])
    faults[longest > spec.max_completion_tokens] |= Fault.COMPLETION_TOO_LONG
    distinct = (faults & Fault.EQUAL_REPLIES) == 0
    faults[distinct & (columns["distance"] <= spec.displacement_distance)] |= Fault.DISPLACEMENT_RISK
    sound = considered[(faults[considered] & Fault.MALFORMED) == 0]
    in_file = np.sort(sound)
    _, first = np.unique(columns["digest"][in_file], return_index=True)
    again = np.ones(len(in_file), bool)
    again[first] = False
    faults[in_file[again]] |= Fault.DUPLICATE
    pairs = sound[(columns["second"][sound] > 0) & distinct[sound]]
    faults[pairs[np.isin(columns["swapped"][pairs], columns["digest"][pairs])]] |= Fault.CONTRADICTION
    return faults


def told(count: int, what: str, left_out: Counter[str]) -> str:
    """One line on what is trained on and what is not.

    >>> told(7731, "rows", Counter({"with identical answers": 269}))
    '7,731 rows; left out: 269 with identical answers'
    """
    lost = ", ".join(f"{number:,} {reason}" for reason, number in sorted(left_out.items()))
    return f"{count:,} {what}" + (f"; left out: {lost}" if lost else "")


def phrase(text: str, spec: DataSpec) -> str:
    """A fault's words with the limits of the recipe."""
    return text.format(prompt=spec.max_prompt_tokens, completion=spec.max_completion_tokens)


def action(fault: Fault, spec: DataSpec) -> str:
    """What the recipe says shall become of rows with this fault."""
    said: Any = getattr(spec.faults, FAULTS[fault][0])
    return str(said)


def _sound(considered: Rows, faults: NDArray[np.int64], spec: DataSpec, left_out: Counter[str]) -> Rows:
    """Those without a fault that leaves a row out; each row counts once, under its first such fault."""
    rows = considered
    for fault, (_, told, _) in FAULTS.items():
        if action(fault, spec) == "keep":
            continue
        bad = (faults[rows] & fault) != 0
        if bad.any():
            left_out[phrase(told, spec)] += int(bad.sum())
            rows = rows[~bad]
    return rows


def _weighted(rows: Rows, weight: float, seed: int, left_out: Counter[str]) -> Rows:
    whole, share = int(weight), round((weight - int(weight)) * len(rows))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:share])
    if not whole and share < len(rows):
        left_out["not drawn"] = len(rows) - share
    return np.concatenate([*[rows] * whole, rows[drawn]]).astype(np.int64)
