"""From hidden states or logits to log pi(y_t | x, y_<t): the only place that shifts labels.

The state at position t predicts token t + 1. All functions here take `places`, the positions whose states predict the
tokens of each completion, and give one score per completion token: column j is the j-th token of a completion, however
its tokens lie in the batch. Nothing else is ever looked at, so whatever a model computes on padding, NaN included, can
reach no result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flipguard.objective.linear_head import linear_token_logps

Head = Callable[[Tensor], Tensor]
"""[N, H] hidden states -> [N, V] logits: a Linear, one with LoRA, or any function around it (softcap, temperature)."""


def predicting_positions(prompt_end: int, start: int, length: int) -> list[int]:
    """Where the tokens of one completion are predicted: at the last token of its prompt, then at its own but the last.

    Args:
        prompt_end: the position after the last token of the prompt, >= 1.
        start: the position of the completion's first token; `prompt_end`, unless something lies between.
        length: tokens of the completion, >= 0.
    """
    return [prompt_end - 1, *range(start, start + length - 1)][:length]


def token_logps(hidden: Tensor, head: Head, places: Tensor, targets: Tensor, *, tile_tokens: int = 1024) -> Tensor:
    """Score every completion token without ever building [B, T, V]: the log pi(y_t | x, y_<t) behind Eqs. 3 to 12.

    The head sees completion positions only, a tile at a time, and each tile is computed again in the backward pass, so
    the peak is a few [tile, V] whatever the batch. A plain torch.nn.Linear is read by `linear_token_logps`.

    Args:
        hidden: [R, T, H] last hidden states, any float dtype; they may depend on the policy.
        head: maps [N, H] to [N, V] logits; called at least once, with no rows if nothing is to be scored.
        places: [S, C] position in the flattened [R * T] that predicts the j-th token of each completion; -1 is padding.
        targets: [S, C] the token ids that are scored; anything on padding.
        tile_tokens: rows given at once to a head that is no plain Linear, >= 1.

    Returns:
        [S, C] log-probabilities in nats, float32 or wider, exactly 0 on padding.
    """
    if _is_plain(head):
        scored = places >= 0
        return _spread(linear_token_logps(_at(hidden, places), head.weight, head.bias, targets[scored]), scored)

    def score(states: Tensor, targets: Tensor) -> Tensor:
        return _log_softmax(head(states)).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    scored = places >= 0
    return _spread(_in_tiles(score, _at(hidden, places), targets[scored], tile_tokens=tile_tokens), scored)


def token_logps_from_logits(logits: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """Score every completion token from logits that somebody already built; `token_logps` is the lean way.

    Args:
        logits: [R, T, V] as a causal model returns them, any float dtype.
        places: [S, C] position in the flattened [R * T] that predicts the j-th token of each completion; -1 is padding.
        targets: [S, C] the token ids that are scored; anything on padding.

    Returns:
        [S, C] log-probabilities in nats, float32 or wider, exactly 0 on padding.
    """
    scored = places >= 0
    found = _log_softmax(_at(logits, places)).gather(-1, targets[scored].unsqueeze(-1))
    return _spread(found.squeeze(-1), scored)


def token_divergences(
    hidden: Tensor,
    head: Head,
    ref_hidden: Tensor,
    ref_head: Head,
    places: Tensor,
    divergence: Callable[[Tensor, Tensor], Tensor],
    *,
    tile_tokens: int = 1024,
) -> Tensor:
    """D[pi_0(. | x, y_<t) || pi(. | x, y_<t)] at every completion token (Eq. 11), over the whole vocabulary.

    Both distributions exist only tile by tile, as in `token_logps`; nothing flows back into the reference.

    Args:
        hidden: [R, T, H] last hidden states of the policy.
        head: maps [N, H] to [N, V] logits of the policy.
        ref_hidden: [R, T, H_0] last hidden states of pi_0 on the same tokens; its width may differ.
        ref_head: maps [N, H_0] to [N, V] logits of pi_0.
        places: [S, C] position in the flattened [R * T] that predicts the j-th token of each completion; -1 is padding.
        divergence: maps log-probabilities [N, V] of pi_0 and of pi to [N] nats; see `divergences.DIVERGENCES`.
        tile_tokens: rows given to the heads at once, >= 1.

    Returns:
        [S, C] in nats, float32 or wider, exactly 0 on padding.
    """

    def diverge(states: Tensor, ref_states: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logprobs = _log_softmax(ref_head(ref_states))
        return divergence(ref_logprobs, _log_softmax(head(states)))

    tiles = _in_tiles(diverge, _at(hidden, places), _at(ref_hidden, places), tile_tokens=tile_tokens)
    return _spread(tiles, places >= 0)


def sequence_logps(token_logps: Tensor) -> Tensor:
    """Log pi(y | x): the sum over completion tokens, [S, C] -> [S], in nats."""
    return token_logps.sum(dim=-1)


def _at(states: Tensor, places: Tensor) -> Tensor:
    """[R, T, H] -> [N, H]: the states of the places that are no padding, completion by completion."""
    return states.flatten(0, 1)[places[places >= 0]]


def _is_plain(head: Head) -> TypeGuard[torch.nn.Linear]:
    """A Linear whose weights are all there: nothing is sharded, adapted, quantized or hooked."""
    return type(head) is torch.nn.Linear and not (head._forward_pre_hooks or head._forward_hooks)  # noqa: SLF001


def _log_softmax(logits: Tensor) -> Tensor:
    """[N, V] logits -> [N, V] log-probabilities in nats, in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)


def _in_tiles(function: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor, *, tile_tokens: int) -> Tensor:
    """`function` over two aligned columns of N rows, a tile at a time, recomputed in the backward pass -> [N]."""
    tiles = zip(torch.split(left, tile_tokens), torch.split(right, tile_tokens), strict=True)
    if not torch.is_grad_enabled():  # nothing to recompute: spare the bookkeeping, random state included
        return torch.cat([function(*tile) for tile in tiles])
    return torch.cat([checkpoint(function, *tile, use_reentrant=False) for tile in tiles])


def _spread(values: Tensor, scored: Tensor) -> Tensor:
    """[N] values of the scored tokens -> [S, C], exactly 0 elsewhere."""
    return values.new_zeros(scored.shape).masked_scatter(scored, values)
