"""A causal model with a bias-free regression head on its last token, such as UltraRM."""

from __future__ import annotations

from typing import Any

from flipguard.rewards import texts
from flipguard.rewards.language_models import Encoded, load_classifier, load_tokenizer, scorer_of
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer

HEAD = {"^regression_head": "score"}
"""Their name of the head's weights, and that of a sequence classifier, which computes the same."""


def open_scorer(spec: RewardSpec, place: str) -> Scorer:  # noqa: ARG001 - the signature of all kinds
    """The model at `spec.path` as a scorer.

    Raises:
        ModelError: it cannot be loaded.
    """
    model, tokenizer = load_classifier(spec, num_labels=1, key_mapping=HEAD), load_tokenizer(spec)

    def encode(prompt: Any, completion: Any) -> Encoded:
        return Encoded(tokenizer(texts.human_and_assistant(prompt, completion), verbose=False)["input_ids"])

    return scorer_of(spec, model, tokenizer, encode)
