"""From hidden states or logits to log pi(y_t | x, y_<t): the only place that shifts labels.

Position t of the input predicts token t + 1, so a batch of T tokens has T - 1 scores and token 0 is never scored. Only
completion positions are ever looked at, so whatever a model computes on padding, NaN included, can reach no result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]
"""[N, H] hidden states -> [N, V] logits: a Linear, one with LoRA, or any function around it (softcap, temperature)."""


def token_logps(
    hidden: Tensor, head: Head, input_ids: Tensor, completion_mask: Tensor, *, tile_tokens: int = 1024
) -> Tensor:
    """Score every completion token without ever building [B, T, V]: the log pi(y_t | x, y_<t) behind Eqs. 3 to 12.

    The head sees completion positions only, at most `tile_tokens` at a time, and each tile is computed again in the
    backward pass, so the peak is a few [tile_tokens, V] whatever the batch.

    Args:
        hidden: [B, T, H] last hidden states, any float dtype; they may depend on the policy.
        head: maps [N, H] to [N, V] logits; called at least once, with no rows if nothing is to be scored.
        input_ids: [B, T] token ids.
        completion_mask: [B, T], true on the tokens of the completion.
        tile_tokens: rows given to the head at once, >= 1; changes memory and speed, not the numbers.

    Returns:
        [B, T-1] log-probabilities in nats, float32 or wider, exactly 0 outside the completion.
    """
    scored = _scored(completion_mask)

    def score(states: Tensor, targets: Tensor) -> Tensor:
        return _log_softmax(head(states)).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    return _spread(_in_tiles(score, hidden[:, :-1][scored], input_ids[:, 1:][scored], tile_tokens=tile_tokens), scored)


def token_logps_from_logits(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Score every completion token from logits that somebody already built; `token_logps` is the lean way.

    Args:
        logits: [B, T, V] as a causal model returns them, any float dtype.
        input_ids: [B, T] token ids.
        completion_mask: [B, T], true on the tokens of the completion.

    Returns:
        [B, T-1] log-probabilities in nats, float32 or wider, exactly 0 outside the completion.
    """
    scored = _scored(completion_mask)
    targets = input_ids[:, 1:][scored].unsqueeze(-1)
    return _spread(_log_softmax(logits[:, :-1][scored]).gather(-1, targets).squeeze(-1), scored)


def token_divergences(
    hidden: Tensor,
    head: Head,
    ref_hidden: Tensor,
    ref_head: Head,
    completion_mask: Tensor,
    divergence: Callable[[Tensor, Tensor], Tensor],
    *,
    tile_tokens: int = 1024,
) -> Tensor:
    """D[pi_0(. | x, y_<t) || pi(. | x, y_<t)] at every completion token (Eq. 11), over the whole vocabulary.

    Both distributions exist only tile by tile, as in `token_logps`; nothing flows back into the reference.

    Args:
        hidden: [B, T, H] last hidden states of the policy.
        head: maps [N, H] to [N, V] logits of the policy.
        ref_hidden: [B, T, H_0] last hidden states of pi_0 on the same tokens; its width may differ.
        ref_head: maps [N, H_0] to [N, V] logits of pi_0.
        completion_mask: [B, T], true on the tokens of the completion.
        divergence: maps log-probabilities [N, V] of pi_0 and of pi to [N] nats; see `divergences.DIVERGENCES`.
        tile_tokens: rows given to the heads at once, >= 1.

    Returns:
        [B, T-1] in nats, float32 or wider, exactly 0 outside the completion.
    """
    scored = _scored(completion_mask)

    def diverge(states: Tensor, ref_states: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logprobs = _log_softmax(ref_head(ref_states))
        return divergence(ref_logprobs, _log_softmax(head(states)))

    tiles = _in_tiles(diverge, hidden[:, :-1][scored], ref_hidden[:, :-1][scored], tile_tokens=tile_tokens)
    return _spread(tiles, scored)


def sequence_logps(token_logps: Tensor) -> Tensor:
    """Log pi(y | x): the sum over completion tokens, [B, T-1] -> [B], in nats."""
    return token_logps.sum(dim=-1)


def completion_lengths(completion_mask: Tensor) -> Tensor:
    """Tokens that are scored, [B, T] -> [B] int64; position 0 has no prefix and never counts."""
    return _scored(completion_mask).sum(dim=-1)


def _scored(completion_mask: Tensor) -> Tensor:
    """The shift: [B, T] mask over tokens -> [B, T-1] bool over the positions that predict them."""
    return completion_mask[:, 1:].bool()


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
    """[N] values of the scored positions -> [B, T-1], exactly 0 elsewhere."""
    return values.new_zeros(scored.shape).masked_scatter(scored, values)
