"""A sequence classifier over a pair of texts, question and answer: OpenAssistant's DeBERTa and kin."""

from __future__ import annotations

from typing import Any

from flipguard.rewards import texts
from flipguard.rewards.language_models import Encoded, load_classifier, load_tokenizer, scorer_of
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer


def open_scorer(spec: RewardSpec, place: str) -> Scorer:  # noqa: ARG001 - the signature of all kinds
    """The model at `spec.path` as a scorer.

    Raises:
        ModelError: it cannot be loaded.
    """
    model, tokenizer = load_classifier(spec), load_tokenizer(spec)

    def encode(prompt: Any, completion: Any) -> Encoded:
        encoded = tokenizer(*texts.question_and_answer(prompt, completion), verbose=False)
        return Encoded(encoded["input_ids"], encoded.get("token_type_ids"))

    return scorer_of(spec, model, tokenizer, encode)
