"""How far the policy went from pi_0 at one token: the D of Eq. 11.

Those over the whole vocabulary map log-probabilities of pi_0 and of pi, both [..., V] and normalised, to [...] nats.
They are >= 0 up to rounding, 0 only where the two agree, and differentiable in the policy with a finite gradient, also
where both give a token no probability at all (-inf). To add one, write the function and add a row to the table below.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def cross_entropy(token_logps: Tensor) -> Tensor:
    """-log pi(y*_t | x, y*_<t), Eq. 12: what is left of the KL when pi_0 puts all its mass on the target y*.

    Args:
        token_logps: [...] log-probabilities of the target's tokens under the policy, in nats; 0 outside it.

    Returns:
        [...] nats, >= 0; 0 outside the target.
    """
    return -token_logps


def forward_kl(ref_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """KL(pi_0 || pi) = sum_v pi_0(v) log(pi_0(v) / pi(v)), Eq. 13.

    Its gradient in the policy is that of the cross entropy H(pi_0, pi) (Eq. 15). Infinite where pi excludes a token
    that pi_0 does not, with a gradient that is still finite.

    Args:
        ref_logprobs: [..., V] log pi_0, in nats.
        logprobs: [..., V] log pi, in nats.

    Returns:
        [...] nats, >= 0.
    """
    p_0 = ref_logprobs.exp()
    log_ratio = (ref_logprobs - logprobs).masked_fill(p_0 == 0, 0.0)
    return (p_0 * log_ratio).sum(dim=-1)


def reverse_kl(ref_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """KL(pi || pi_0): the same with the roles exchanged; it minds what the policy adds, not what it loses.

    Infinite, gradient included, where pi_0 excludes a token that pi does not.

    Args:
        ref_logprobs: [..., V] log pi_0, in nats.
        logprobs: [..., V] log pi, in nats.

    Returns:
        [...] nats, >= 0.
    """
    return forward_kl(logprobs, ref_logprobs)


def jensen_shannon(ref_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """1/2 KL(pi_0 || m) + 1/2 KL(pi || m) with m = (pi_0 + pi) / 2: symmetric, at most log 2 (Lin 1991).

    Args:
        ref_logprobs: [..., V] log pi_0, in nats.
        logprobs: [..., V] log pi, in nats.

    Returns:
        [...] nats, in [0, log 2].
    """
    lowest = torch.finfo(logprobs.dtype).min  # log(0 + 0) has no gradient; the log of a number this small has one
    m = torch.logaddexp(ref_logprobs.clamp(min=lowest), logprobs.clamp(min=lowest)) - math.log(2)
    return 0.5 * forward_kl(ref_logprobs, m) + 0.5 * forward_kl(logprobs, m)


def wasserstein(ref_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """W_1 under the 0/1 cost on tokens = total variation, 1/2 sum_v |pi_0(v) - pi(v)|.

    Token ids have no order and no spacing, so |v - w| means nothing as a cost; moving mass from any token to any other
    costs 1, and the optimal transport then has this closed form. (A cost from embeddings would need a V x V transport
    problem per token, and would change with the policy.) Its gradient does not fade as pi nears pi_0.

    Args:
        ref_logprobs: [..., V] log pi_0, in nats.
        logprobs: [..., V] log pi, in nats.

    Returns:
        [...] probability mass moved, in [0, 1].
    """
    return 0.5 * (ref_logprobs.exp() - logprobs.exp()).abs().sum(dim=-1)


Divergence = Callable[[Tensor, Tensor], Tensor]
"""[..., V] log pi_0, [..., V] log pi -> [...]."""

DIVERGENCES: dict[str, Divergence] = {
    "kl": forward_kl,
    "reverse_kl": reverse_kl,
    "js": jensen_shannon,
    "wasserstein": wasserstein,
}
"""Those that need both distributions, by their name in a recipe; "ce" needs only the target: `cross_entropy`."""

DIVERGENCE_NAMES = ("ce", *DIVERGENCES)
"""Every value of `constraint.divergence`, the paper's own first."""
