"""Pairs in packed rows: a prompt once for all its completions, several pairs in a row, hardly any padding.

Every token belongs to a segment, a prompt or a completion. A mask lets it see what it would see alone: its own segment
and its prompt, up to itself; and its position is the one it would have alone. So the numbers are those of padded rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flipguard.objective import logprobs
from flipguard.train.data import TokenRow

PADDING = -1


@dataclass
class _Row:
    """A row as it grows."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    prefixes: list[int] = field(default_factory=list)
    count: int = 0  # of segments


@dataclass(frozen=True)
class _Unit:
    """What must lie in one row: a prompt, and completions with their numbers in the batch."""

    prompt: Sequence[int]
    completions: list[tuple[int, Sequence[int]]]

    @property
    def length(self) -> int:
        """The last token of a completion is only predicted, never read."""
        return len(self.prompt) + sum(max(len(tokens) - 1, 0) for _, tokens in self.completions)


def packed(rows: Sequence[TokenRow], pad_token_id: int, *, share: bool, fill: bool, room: int = 0) -> dict[str, Tensor]:
    """A batch in packed rows.

    Args:
        rows: prompts with their completions.
        pad_token_id: what fills up.
        share: read each prompt once for all its completions, not once for each.
        fill: put several prompts into one row, up to `room` tokens, or the length of the longest.
        room: as above.

    Returns:
        input_ids, position_ids, segments and prefixes (the segment of a token, and that of its prompt) [R, T];
        places, targets [S, C] and lengths [S] as in padded rows: first the first completions of all rows.
    """
    sides = len(rows[0].completions)
    units = _units(rows, share=share)
    bins = _bins(units, room) if fill else [[unit] for unit in units]
    built = [_Row() for _ in bins]
    width = max(1, *(sum(unit.length for unit in contents) for contents in bins))
    places: list[list[int]] = [[] for _ in range(sides * len(rows))]
    targets: list[Sequence[int]] = [[] for _ in places]
    for number, (row, contents) in enumerate(zip(built, bins, strict=True)):
        for unit in contents:
            _lay(unit, row, number * width, places, targets)
    return {
        "input_ids": padded([row.ids for row in built], pad_token_id, width),
        "position_ids": padded([row.positions for row in built], 0, width),
        "segments": padded([row.segments for row in built], PADDING, width),
        "prefixes": padded([row.prefixes for row in built], PADDING, width),
        "places": padded(places, -1),
        "targets": padded(targets, pad_token_id),
        "lengths": torch.tensor([len(target) for target in targets]),
    }


def visible(batch: dict[str, Tensor], window: int | None = None) -> Tensor:
    """[R, 1, T, T] bool: which tokens (last axis) each token sees.

    Args:
        batch: position_ids, segments and prefixes of `packed`.
        window: how many positions back a token sees, itself included; None is all.
    """
    segments, positions = batch["segments"], batch["position_ids"]
    sees = segments.unsqueeze(1) == segments.unsqueeze(2)
    sees |= segments.unsqueeze(1) == batch["prefixes"].unsqueeze(2)
    sees &= torch.ones_like(sees[0]).tril()
    if window is not None:
        near = positions.unsqueeze(2) - positions.unsqueeze(1) < window
        sees &= near | (segments == PADDING).unsqueeze(2)
    return sees.unsqueeze(1)


def padded(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """[len(rows), width] int64, `value` on the right of shorter rows; by default as wide as the longest."""
    width = max(map(len, rows)) if width is None else width
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64)


def _units(rows: Sequence[TokenRow], *, share: bool) -> list[_Unit]:
    units = []
    for number, row in enumerate(rows):
        found = [(side * len(rows) + number, tokens) for side, tokens in enumerate(row.completions)]
        units.extend([_Unit(row.prompt, found)] if share else [_Unit(row.prompt, [one]) for one in found])
    return units


def _bins(units: list[_Unit], wanted: int) -> list[list[_Unit]]:
    """First fit, the longest first: rows no longer than wanted, or than the longest unit."""
    room: list[int] = []
    bins: list[list[_Unit]] = []
    widest = max(wanted, *(unit.length for unit in units))
    for unit in sorted(units, key=lambda unit: -unit.length):
        fitting = next((number for number, left in enumerate(room) if left >= unit.length), None)
        if fitting is None:
            fitting = len(bins)
            bins.append([])
            room.append(widest)
        bins[fitting].append(unit)
        room[fitting] -= unit.length
    return bins


def _lay(unit: _Unit, row: _Row, offset: int, places: list[list[int]], targets: list[Sequence[int]]) -> None:
    """Append a unit to a row that starts at `offset` of the flattened batch.

    Without a prompt, the first token of a completion is not scored.
    """
    prefix, first = row.count, 0 if unit.prompt else 1
    _extend(row, unit.prompt, 0, prefix)
    prompt_end = offset + len(row.ids)
    for index, tokens in unit.completions:
        start = offset + len(row.ids) + first
        places[index] = logprobs.predicting_positions(start if first else prompt_end, start, len(tokens) - first)
        targets[index] = tokens[first:]
        _extend(row, tokens[:-1], len(unit.prompt), prefix)


def _extend(row: _Row, tokens: Sequence[int], position: int, prefix: int) -> None:
    """Append one segment."""
    row.ids.extend(tokens)
    row.positions.extend(range(position, position + len(tokens)))
    row.segments.extend([row.count] * len(tokens))
    row.prefixes.extend([prefix] * len(tokens))
    row.count += 1
