"""Attention over packed rows, unit by unit: what a mask would only hide afterwards is not computed.

A unit is a prompt with its completions. Tokens of two units of a row never see each other, and none sees a later one,
so each stretch of queries meets the keys of its own unit up to its own end; the mask decides the rest. On processors
that halves the time of attention over rows of several units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BY_UNITS = "flipguard_units"
STRETCH = 128
"""Queries taken together: fewer skip more of the mask, and cost more calls."""


@dataclass
class Units:
    """What lies in packed rows."""

    lengths: list[list[int]]
    """Of the units of each row, one after the other, padding included."""
    reached: bool = False
    """Whether an attention layer has got them: models may drop what they do not know."""


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    units: Units | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers' `sdpa` gives, whichever way; registered there as `flipguard_units`.

    Args:
        module: the attention layer.
        query: [R, heads, T, D].
        key: [R, key heads, T, D], as many heads or a divisor of them.
        value: as key.
        attention_mask: [R, 1, T, T], true where a token sees another: at most tokens of its unit, none after it.
        units: of each row; None leaves everything to `sdpa`.
        options: scaling, dropout and the like, as transformers passes them.

    Returns:
        [R, T, heads, D], and None in place of weights.
    """
    if units is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    units.reached = True
    rows = []
    for number, lengths in enumerate(units.lengths):
        row = slice(number, number + 1)
        parts = [torch.split(states[row], lengths, dim=2) for states in (query, key, value)]
        found, start = [], 0
        for queries, keys, values in zip(*parts, strict=True):
            end = start + queries.shape[2]
            mask = attention_mask[row, :, start:end, start:end]
            found += _stretches(module, (queries, keys, values), mask, options)
            start = end
        rows.append(torch.cat(found, dim=1))
    return torch.cat(rows), None


def implementation_of(config: Any) -> str:
    """How a model attends, in transformers' words: `eager`, `sdpa` (also where it goes unit by unit) and so on."""
    said = str(config._attn_implementation)  # noqa: SLF001 - there is no other way to ask
    return "sdpa" if said == BY_UNITS else said


def units_of(prefixes: Tensor) -> Units:
    """The units of packed rows.

    Args:
        prefixes: [R, T] the segment of each token's prompt, as `packing.packed` gives it.

    >>> units_of(torch.tensor([[0, 0, 0, 3, 3], [0, 0, 0, 0, -1]])).lengths
    [[3, 2], [4, 1]]
    """
    return Units([torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in prefixes])


def _stretches(module: Any, states: tuple[Tensor, ...], mask: Tensor, options: dict[str, Any]) -> list[Tensor]:
    """[1, n, heads, D] of each stretch of the queries of one unit."""
    queries, keys, values = states
    found, start = [], 0
    for part in torch.split(queries, STRETCH, dim=2):
        end = start + part.shape[2]
        seen = mask[:, :, start:end, :end]
        found.append(sdpa_attention_forward(module, part, keys[:, :, :end], values[:, :, :end], seen, **options)[0])
        start = end
    return found


AttentionInterface.register(BY_UNITS, attend)
AttentionMaskInterface.register(BY_UNITS, sdpa_mask)
