"""Rows of token ids -> padded tensors: first all chosen, then all rejected, so that one forward pass reads both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flipguard.train.data import TokenRow


@dataclass(frozen=True, slots=True)
class ReferencedPair:
    """A pair and what π_0 says of it: sums over completion tokens, in nats."""

    tokens: TokenRow
    ref_chosen: float
    ref_rejected: float


class Pairs(Dataset[ReferencedPair]):
    """All pairs of a run, by index."""

    def __init__(self, rows: Sequence[ReferencedPair]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ReferencedPair:
        return self.rows[index]


@dataclass(frozen=True)
class PairCollator:
    """Pads to the longest row of a batch, on the right."""

    pad_token_id: int

    def __call__(self, rows: Sequence[ReferencedPair]) -> dict[str, Tensor]:
        """input_ids, attention_mask, completion_mask [2B, T]; ref_logps [2B]."""
        batch = self.pad([row.tokens for row in rows])
        sums = [row.ref_chosen for row in rows] + [row.ref_rejected for row in rows]
        return {**batch, "ref_logps": torch.tensor(sums, dtype=torch.float64)}

    def pad(self, pairs: Sequence[TokenRow]) -> dict[str, Tensor]:
        """input_ids, attention_mask, completion_mask [2B, T]."""
        completions = [pair.completions[side] for side in (0, 1) for pair in pairs]
        prompts = [pair.prompt for pair in pairs] * 2
        lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
        ids = torch.full((len(lengths), max(lengths)), self.pad_token_id)
        attention, completion_mask = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            ids[row, : lengths[row]] = torch.tensor([*prompt, *completion])
            attention[row, : lengths[row]] = 1
            completion_mask[row, len(prompt) : lengths[row]] = True
        return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion_mask}
