"""Who got worse: the premises (7) to (9) and the indicator (10).

A flip is a decision, not a quantity: bool, detached, piecewise constant. An unchanged policy never flips, since a gap
of exactly 0 exceeds no threshold >= 0; nor does an example that cannot be compared (NaN).
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING_NATS = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}


def flip_indicator(ref: Tensor, policy: Tensor, *, threshold: float) -> Tensor:
    """1[ref - policy > threshold], the indicator of Eq. 10.

    Args:
        ref: [B] what pi_0 reached: rewards, or log-probabilities in nats.
        policy: [B] what the policy reaches, in the same units.
        threshold: the gap that is still no flip, >= 0, in the same units.

    Returns:
        [B] bool without gradient; false where the gap is NaN.
    """
    return (ref - policy).detach() > threshold


def reward_flips(ref_rewards: Tensor, policy_rewards: Tensor, *, epsilon: float) -> Tensor:
    """R(x, y_ref) - R(x, y_policy) > epsilon, the flip premise of PPO (Eq. 7).

    Args:
        ref_rewards: [B] scores of completions sampled from pi_0; NaN where there is none.
        policy_rewards: [B] scores of the policy's completions of the same prompts; NaN where there is none.
        epsilon: flip margin in reward units, >= 0.

    Returns:
        [B] bool without gradient; a missing reward is never a flip.
    """
    return flip_indicator(ref_rewards, policy_rewards, threshold=epsilon)


def likelihood_flips(ref_logps: Tensor, policy_logps: Tensor, *, epsilon: float, tolerance: float) -> Tensor:
    """Log pi_0(y_c|x) - log pi(y_c|x) > epsilon, the flip premise of DPO (Eqs. 8, 9).

    It is (7) on the implicit rewards of (6): log Z(x) is the same on both sides and cancels.

    Args:
        ref_logps: [B] sums over the chosen completion under pi_0, in nats.
        policy_logps: [B] the same under the policy.
        epsilon: flip margin in nats, >= 0.
        tolerance: nats on top of epsilon that are only rounding, >= 0; see `rounding_tolerance`. 0 is right where both
            sums come from the same batch in the same step.

    Returns:
        [B] bool without gradient.
    """
    return flip_indicator(ref_logps, policy_logps, threshold=epsilon + tolerance)


def token_flips(ref_token_logps: Tensor, token_logps: Tensor, *, epsilon: float, tolerance: float) -> Tensor:
    """Log pi_0(y_t|x, y_<t) - log pi(y_t|x, y_<t) > epsilon: Eq. 9 for every token of the chosen completion alone.

    The gaps of the tokens add up to that of (9). So with epsilon = 0 a completion that flips has a token that does, but
    a completion whose gains outweigh its losses has flipped tokens too: a wrong fact in a text that is otherwise liked.
    For a completion of one token it is (9) itself. (MUSCLE, arXiv 2407.09435, masks by whether the model would have
    said the token; a likelihood does for preferences, which name no right token, and needs no argmax.)

    Args:
        ref_token_logps: [B, C] under pi_0, in nats; 0 after the last token.
        token_logps: [B, C] the same under the policy.
        epsilon: flip margin in nats, per token, >= 0.
        tolerance: nats on top of epsilon that are only rounding, >= 0.

    Returns:
        [B, C] bool without gradient; false after the last token.
    """
    return flip_indicator(ref_token_logps, token_logps, threshold=epsilon + tolerance)


def flip_margin(ref: Tensor, policy: Tensor, *, epsilon: float) -> Tensor:
    """How much worse: max(0, ref - policy - epsilon), the hinge whose slope is the guard's gradient.

    Args:
        ref: [B] rewards, or log-probabilities in nats, of pi_0.
        policy: [B] the same of the policy, differentiable.
        epsilon: flip margin, >= 0, in the same units.

    Returns:
        [B] >= 0, in the same units; 0 where the gap is NaN.
    """
    gap = ref - policy - epsilon
    return gap.where(gap > 0, 0.0)


def rounding_tolerance(dtype: torch.dtype) -> float:
    """Nats below which two sums of log-probabilities of one text, by one model, may differ by rounding alone.

    Padding, batch composition and kernels change the order of additions. Such differences were observed up to 8e-6 nats
    for a model in float32 and 4e-2 in bfloat16; the tolerance leaves room above them.

    Args:
        dtype: what the models compute in, autocast included.
    """
    if dtype not in _ROUNDING_NATS:
        raise ValueError(f"no rounding tolerance for {dtype}; choose one of: {', '.join(map(str, _ROUNDING_NATS))}")
    return _ROUNDING_NATS[dtype]
