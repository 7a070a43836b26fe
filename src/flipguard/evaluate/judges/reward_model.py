"""A reward as the judge: a model, an endpoint or a function, whatever `--model` names."""

from __future__ import annotations

from dataclasses import replace

from flipguard.errors import JudgeError
from flipguard.scorers import Scorer


def open_judge(model: str | None) -> Scorer:
    """The reward that `model` names, its kind found by looking."""
    if model is None:
        raise JudgeError("--judge reward_model: which? Name a model folder, hub id or URL with --model.")
    from flipguard.rewards.opening import open_reward
    from flipguard.rewards.spec import RewardSpec

    return replace(open_reward(RewardSpec(path=model), "--model"), name=f"reward_model {model}")
