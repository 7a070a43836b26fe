"""Log-probabilities of chosen tokens under a linear head, a tile at a time, in buffers that are used again.

The time of a step with a large vocabulary goes into [tokens, V]: into its products, and into fetching fresh memory
for every intermediate of that size. Here two buffers of one tile serve forward and backward alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_TILE_BYTES = 16 * 2**20  # of one buffer, about: two of them fit into the cache that cores share
GPU_TILE_BYTES = 256 * 2**20


def linear_token_logps(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Log softmax(states · weightᵀ + bias) at the targets, differentiable once in states, weight and bias.

    Args:
        states: [N, H], any float dtype.
        weight: [V, H]; under autocast computed in its dtype, as torch.nn.functional.linear would.
        bias: [V] or None.
        targets: [N] token ids.

    Returns:
        [N] nats, float32 or wider.
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    bias = None if bias is None else bias.to(dtype)
    scores: Tensor = _LinearTokenLogps.apply(  # type: ignore[no-untyped-call]
        states.to(dtype), weight.to(dtype), bias, targets
    )
    return scores


class _LinearTokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, bias, targets)
        buffers = _Buffers(states, weight)
        scores = states.new_empty(len(states), dtype=buffers.precise)
        for tile in buffers.tiles(len(states)):
            logps = buffers.softmax(states[tile], weight, bias, log=True)
            scores[tile] = logps.gather(-1, targets[tile].unsqueeze(-1)).squeeze(-1)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        states, weight, bias, targets = ctx.saved_tensors
        buffers = _Buffers(states, weight)
        d_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=buffers.precise) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=buffers.precise) if ctx.needs_input_grad[2] else None
        for tile in buffers.tiles(len(states)):
            slope = upstream[tile].unsqueeze(-1)
            d_logits = buffers.softmax(states[tile], weight, bias, log=False).mul_(-slope)
            d_logits.scatter_add_(-1, targets[tile].unsqueeze(-1), slope)
            rounded = d_logits.to(states.dtype)
            if d_states is not None:
                torch.mm(rounded, weight, out=d_states[tile])
            if d_weight is not None and rounded.dtype == d_weight.dtype:
                d_weight.addmm_(rounded.T, states[tile])
            elif d_weight is not None:
                d_weight += rounded.T @ states[tile]
            if d_bias is not None:
                d_bias += d_logits.sum(dim=0)
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        return d_states, d_weight, None if d_bias is None else d_bias.to(weight.dtype), None


class _Buffers:
    """Room for the logits of one tile and for their softmax."""

    def __init__(self, states: Tensor, weight: Tensor) -> None:
        vocabulary = len(weight)
        self.precise = torch.promote_types(states.dtype, torch.float32)
        allowed = CPU_TILE_BYTES if states.device.type == "cpu" else GPU_TILE_BYTES
        most = max(16, allowed // (vocabulary * self.precise.itemsize))
        count = max(1, round(len(states) / most))  # a small last tile would read all weights for little
        self.rows = max(1, -(-len(states) // count))
        self._logits = states.new_empty(self.rows, vocabulary)
        self._softmax = states.new_empty(self.rows, vocabulary, dtype=self.precise)

    def tiles(self, count: int) -> list[slice]:
        return [slice(start, min(start + self.rows, count)) for start in range(0, count, self.rows)]

    def softmax(self, states: Tensor, weight: Tensor, bias: Tensor | None, *, log: bool) -> Tensor:
        """[n, V] (log) probabilities, valid until the next call."""
        logits, result = self._logits[: len(states)], self._softmax[: len(states)]
        with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
            torch.mm(states, weight.T, out=logits)
            if bias is not None:
                logits += bias
            function = torch.log_softmax if log else torch.softmax
            function(logits, -1, dtype=self.precise, out=result)
        return result
