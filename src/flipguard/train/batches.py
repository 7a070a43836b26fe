"""Rows of token ids -> one batch: first all chosen, then all rejected, so that one forward pass reads both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from flipguard.objective import logprobs
from flipguard.train.data import TokenRow
from flipguard.train.packing import packed, padded


@dataclass(frozen=True, slots=True)
class ReferencedPair:
    """A pair and what π_0 says of it: sums over completion tokens, in nats."""

    tokens: TokenRow
    ref_chosen: float
    ref_rejected: float
    ref_tokens: Tensor | None = None
    """[length] of the chosen completion, token by token, where the guard's gate needs it."""
    guard_weight: float | None = None
    """What multiplies gamma on this row, where an earlier measurement says so."""


class Pairs(Dataset[ReferencedPair]):
    """All pairs of a run, by index."""

    def __init__(self, rows: Sequence[ReferencedPair]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ReferencedPair:
        return self.rows[index]


@dataclass(frozen=True)
class Layout:
    """How the rows of a batch lie in memory; the numbers are the same.

    Without `share` and `fill` it is the plain layout, one padded row for each completion; any other reads packed rows.
    """

    share: bool = False
    fill: bool = False
    row_tokens: int = 0
    """How long `fill` may make rows, if not as long as their longest prompt with its completions anyway."""
    slice_tokens: int | None = None
    """Read a batch of pairs in slices of about so many tokens, one forward and backward after the other."""

    @property
    def is_packed(self) -> bool:
        """Whether a model must honour masks and positions of ours."""
        return self.share or self.fill


def in_slices(rows: Sequence[ReferencedPair], tokens: int) -> list[Sequence[ReferencedPair]]:
    """Rows in groups of at most `tokens` tokens, or of one row, the longest first: the mean over them stays the same.

    >>> in_slices([], 100)
    []
    """
    slices: list[list[ReferencedPair]] = []
    room = 0
    for size, row in sorted(((_size(row.tokens), row) for row in rows), key=lambda one: -one[0]):
        if not slices or size > room:
            slices.append([])
            room = tokens
        slices[-1].append(row)
        room -= size
    return list(slices)


def _size(row: TokenRow) -> int:
    return len(row.prompt) + sum(map(len, row.completions))


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of pairs."""

    pad_token_id: int
    layout: Layout = Layout()

    def __call__(self, rows: Sequence[ReferencedPair]) -> dict[str, Tensor]:
        """As `pad`, with ref_logps [2B], and what `guarded` knows."""
        batch = self.pad([row.tokens for row in rows])
        sums = [row.ref_chosen for row in rows] + [row.ref_rejected for row in rows]
        return {**batch, **self.guarded(rows), "ref_logps": torch.tensor(sums, dtype=torch.float64)}

    def guarded(self, rows: Sequence[ReferencedPair]) -> dict[str, Tensor]:
        """What only some guards need, if the rows have it: ref_token_logps [B, longest chosen], guard_weights [B]."""
        known: dict[str, Tensor] = {}
        tokens = [row.ref_tokens for row in rows if row.ref_tokens is not None]
        if tokens:
            known["ref_token_logps"] = pad_sequence(tokens, batch_first=True)
        weights = [row.guard_weight for row in rows if row.guard_weight is not None]
        if weights:
            known["guard_weights"] = torch.tensor(weights)
        return known

    def pad(self, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
        """Completions in S rows: the first ones of all rows, then the second ones.

        Returns:
            input_ids, attention_mask [S, T], or what `packing.packed` says; places, targets [S, C], as in
            `logprobs.token_logps`; lengths [S], the scored tokens of each completion.
        """
        if self.layout.is_packed:
            return packed(
                rows, self.pad_token_id, share=self.layout.share, fill=self.layout.fill, room=self.layout.row_tokens
            )
        completions = [row.completions[side] for side in range(len(rows[0].completions)) for row in rows]
        prompts = [row.prompt for row in rows] * len(rows[0].completions)
        wholes = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        width = max(map(len, wholes))
        places = []
        for number, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True)):
            end = number * width + max(len(prompt), 1)  # without a prompt, the first token is not scored
            places.append(logprobs.predicting_positions(end, end, len(whole) - max(len(prompt), 1)))
        targets = [whole[max(len(prompt), 1) :] for prompt, whole in zip(prompts, wholes, strict=True)]
        return {
            "input_ids": padded(wholes, self.pad_token_id),
            "attention_mask": padded([[1] * len(whole) for whole in wholes], 0),
            "places": padded(places, -1),
            "targets": padded(targets, self.pad_token_id),
            "lengths": torch.tensor([len(target) for target in targets]),
        }


def first_completions(batch: dict[str, Tensor], sides: int) -> dict[str, Tensor]:
    """What must be read to score the first completion of each row: its padded rows, or all where they are packed.

    Args:
        batch: from `PairCollator.pad`.
        sides: completions of each row.
    """
    split = ["places", "targets", "lengths", *(["input_ids", "attention_mask"] if "attention_mask" in batch else [])]
    return {**batch, **{name: batch[name].chunk(sides)[0] for name in split}}
