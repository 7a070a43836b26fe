"""From a name to a Scorer: the kind is said, or found by looking."""

from __future__ import annotations

import importlib
import re

from flipguard.errors import JudgeError, choose, shown
from flipguard.rewards import KINDS
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def open_reward(spec: RewardSpec, place: str) -> Scorer:
    """A scorer that answers for `spec`; models are loaded here, endpoints asked with the first batch.

    Args:
        spec: which reward.
        place: who asked for it, for errors: `--model`, `ppo.yaml: reward`.

    Raises:
        JudgeError: the kind is unknown, or a function cannot be had.
        ModelError: there is no such model, or it gives no rewards.
    """
    _check(spec, place)
    kind = _kind(spec) if spec.kind == "auto" else spec.kind
    opener = importlib.import_module(f"flipguard.rewards.{kind}")
    scorer: Scorer = opener.open_scorer(spec, place)
    return scorer


def _kind(spec: RewardSpec) -> str:
    if spec.path.startswith(("http://", "https://")):
        return "endpoint"
    if FUNCTION.fullmatch(spec.path):
        return "function"
    from flipguard.rewards.language_models import kind_of_model

    return kind_of_model(spec)


def _check(spec: RewardSpec, place: str) -> None:
    if spec.kind not in ("auto", *KINDS):
        raise JudgeError(f"{place}: kind {shown(spec.kind)} is unknown. {choose(spec.kind, ('auto', *KINDS))}")
    least = {"max_tokens": spec.max_tokens, "batch_size": spec.batch_size, "timeout": spec.timeout}
    for name, value in least.items():
        if value is not None and value <= 0:
            raise JudgeError(f"{place}: {name} {value} is not possible: it must be greater than 0.")
    if spec.retries < 0:
        raise JudgeError(f"{place}: retries {spec.retries} is not possible: it must be at least 0.")
