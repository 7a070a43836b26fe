"""A sequence classifier that reads a conversation through its chat template, or plain text: Skywork-Reward and kin."""

from __future__ import annotations

from typing import Any

import jinja2

from flipguard.errors import ModelError
from flipguard.rewards import texts
from flipguard.rewards.language_models import FORM, Encoded, load_classifier, load_tokenizer, scorer_of
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer


def open_scorer(spec: RewardSpec, place: str) -> Scorer:
    """The model at `spec.path` as a scorer.

    Raises:
        ModelError: it cannot be loaded, or a form is asked for that it does not know.
    """
    model, tokenizer = load_classifier(spec), load_tokenizer(spec)
    trained = tokenizer.init_kwargs.get(FORM, "chat" if tokenizer.chat_template else "plain")
    form = trained if spec.form == "auto" else spec.form
    if form == "chat" and tokenizer.chat_template is None:
        raise ModelError(f"{place}: {spec.path}: has no chat template. Set form: plain, or add a template.")

    def encode(prompt: Any, completion: Any) -> Encoded:
        pair = (tokenizer, prompt, completion)
        return Encoded(_chat(spec, *pair) if form == "chat" else _plain(*pair))

    return scorer_of(spec, model, tokenizer, encode)


def _chat(spec: RewardSpec, tokenizer: Any, prompt: Any, completion: Any) -> list[int]:
    """The template writes the special tokens itself: the tokenizer must not add a second first token."""
    try:
        text = tokenizer.apply_chat_template(texts.conversation(prompt, completion), tokenize=False)
    except jinja2.TemplateError as error:
        raise ModelError(f"{spec.path}: its chat template refuses a conversation: {error}.") from None
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _plain(tokenizer: Any, prompt: Any, completion: Any) -> list[int]:
    """As in training: the text, and the end token once."""
    ids: list[int] = tokenizer(texts.plain(prompt, completion), verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]
