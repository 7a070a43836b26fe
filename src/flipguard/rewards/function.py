"""A Python function: `package.module:function`, with the signature of TRL's reward functions."""

from __future__ import annotations

from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer, user_scorer


def open_scorer(spec: RewardSpec, place: str) -> Scorer:
    """The function that `spec.path` names.

    Raises:
        JudgeError: there is none, or it cannot take the columns.
    """
    return user_scorer(spec.path, place)
