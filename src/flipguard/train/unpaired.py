"""KTO in a trainer: labelled completions, a mismatched one beside each, and Eq. 11 on the desirable ones.

The reference point z_0 needs answers to other prompts. Each row gets one that stays the same throughout, so that what
π_0 says of it can be computed once too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from flipguard.errors import DataError
from flipguard.objective import logprobs
from flipguard.objective.unpaired import UnpairedLogps
from flipguard.train.batches import PairCollator, ReferencedPair
from flipguard.train.data import TokenData, TokenRow, load_unpaired
from flipguard.train.dataspec import DataSpec, SourceSpec
from flipguard.train.guard import Guard, Guarded

MISMATCHED = "mismatched_"


def load_mismatched(
    sources: str | SourceSpec | Sequence[SourceSpec], spec: DataSpec, tokenizer: Any, context: int | None
) -> TokenData:
    """`load_unpaired`, and the mismatched completions with it."""
    data = load_unpaired(sources, spec, tokenizer, context)
    return replace(data, rows=with_mismatched(data.rows, context))


def with_mismatched(rows: Sequence[TokenRow], context: int | None) -> list[TokenRow]:
    """Each row with a second completion: that of the row before it with another prompt, the first following the last.

    Rows of one prompt that stand together, as those made from a pair do, take theirs in turn from the prompt before:
    so every completion is taken about once, desirable and undesirable ones alike, as the estimate of z_0 wants.

    Args:
        rows: with one completion each.
        context: the longest sequence the model can read, in tokens; a mismatched completion is cut to it.

    Raises:
        DataError: all rows have one prompt.
    """
    groups = [list(group) for _, group in groupby(rows, key=lambda row: tuple(row.prompt))]
    if len(groups) == 1:
        raise DataError(f"{rows[0].place}: all rows have the same prompt; kto needs answers to other prompts.")
    paired = []
    for index, group in enumerate(groups):
        before = groups[index - 1]
        if tuple(before[0].prompt) == tuple(group[0].prompt):  # the last prompt is the first one again
            before = groups[index - 2]
        for number, row in enumerate(group):
            other = before[number % len(before)].completions[0]
            room = None if context is None else context - len(row.prompt)
            paired.append(replace(row, completions=(row.completions[0], other[:room])))
    return paired


@dataclass(frozen=True)
class UnpairedCollator:
    """Pads rows and, apart from them, their mismatched completions."""

    pairs: PairCollator

    def __call__(self, rows: Sequence[ReferencedPair]) -> dict[str, Tensor]:
        """As `PairCollator`, for the first completions [B, ...]; those of the second under `mismatched_...`.

        Beside them: ref_logps, mismatched_ref_logps [B]; desirable [B] bool.
        """
        own, other = (
            [replace(row.tokens, completions=(row.tokens.completions[side],)) for row in rows] for side in (0, 1)
        )
        return {
            **self.pairs.pad(own),
            **{f"{MISMATCHED}{name}": tensor for name, tensor in self.pairs.pad(other).items()},
            **self.pairs.guarded(rows),
            "ref_logps": torch.tensor([row.ref_chosen for row in rows], dtype=torch.float64),
            f"{MISMATCHED}ref_logps": torch.tensor([row.ref_rejected for row in rows], dtype=torch.float64),
            "desirable": torch.tensor([bool(row.tokens.label) for row in rows]),
        }


def mismatched(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a batch that holds the mismatched completions, under the usual names."""
    return {name.removeprefix(MISMATCHED): part for name, part in batch.items() if name.startswith(MISMATCHED)}


@dataclass(frozen=True)
class UnpairedLoss:
    """L_align + gamma · w · D (Eq. 11) of labelled completions; only the desirable ones can flip."""

    align: partial[Tensor]
    beta: float
    guard: Guard
    completions = 1
    """Of each row of a batch; the guard watches the first."""

    def __call__(
        self, token_logps: Tensor, batch: dict[str, Tensor], token_divergence: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and what to log of it.

        Args:
            token_logps: [B, C] log pi of the j-th completion token, then 0; differentiable.
            batch: lengths [B] scored tokens, ref_logps [B] sums under π_0, desirable [B] bool, z_0 [1], all in nats;
                where they are known, ref_token_logps [B, C] and guard_weights [B].
            token_divergence: [B, C] D per token.

        Returns:
            [] mean over the batch, and metrics by name without gradient, each one value per row it speaks of.
        """
        policy = logprobs.sequence_logps(token_logps)
        desirable, z_0 = batch["desirable"], batch["z_0"].to(policy.dtype)
        rows = UnpairedLogps(policy, batch["ref_logps"].to(policy.dtype), desirable, z_0)
        term, told = self.guard(
            Guarded(
                token_logps,
                rows.ref,
                batch["lengths"],
                token_divergence,
                batch.get("ref_token_logps"),
                batch.get("guard_weights"),
            ),
            watched=desirable,
        )
        return self.align(rows).mean() + term, {**told, **self._metrics(rows, batch["lengths"])}

    @torch.no_grad()
    def _metrics(self, rows: UnpairedLogps, lengths: Tensor) -> dict[str, Tensor]:
        rewards = self.beta * (rows.policy - rows.ref)
        return {
            "kl/ref": (rows.ref - rows.policy) / lengths.clamp(min=1),
            "kl/z_0": rows.z_0.expand(len(rewards)),
            "rewards/chosen": rewards[rows.desirable],
            "rewards/rejected": rewards[~rows.desirable],
            "logps/chosen": rows.policy[rows.desirable],
            "logps/rejected": rows.policy[~rows.desirable],
        }
