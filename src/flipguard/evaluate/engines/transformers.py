"""Answers from a Hugging Face causal language model, in batches padded on the left.

What is put in: a list of messages goes through the tokenizer's chat template with the generation prompt added. A text
becomes one user message where there is a template (unless `template` is "off") and goes in as it is where there is
none. A beginning-of-sequence token is never doubled, an end-of-sequence token never put behind the prompt.

What decides the answer: the weights, and temperature, top_p, top_k, max_new_tokens as they were asked for. The model's
own generation_config is used for its end-of-sequence tokens and nothing else: a temperature or repetition penalty that
one of two models was saved with would make the comparison one of settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from flipguard.errors import DataError, ModelError, shown
from flipguard.evaluate.engine import Answer, Answerer, Engine, Question, Settings
from flipguard.records import Message, Row
from flipguard.weights import adapter_base, identity, model_folder, one_line


def open_engine(settings: Settings) -> Engine:
    """The engine for `settings`; the model is not loaded yet."""
    return TransformersEngine(settings)


class TransformersEngine(Engine):
    """A model folder or hub id, on one device of this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._device = _device(settings.device)
        self._identity = identity(settings.model)

    def identity(self) -> Row:
        """The weights, and where and in which precision they are multiplied."""
        return {**self._identity, "dtype": self._settings.dtype, "device": self._device.type}

    def load(self, questions: Sequence[Question]) -> Answerer:
        """Load tokenizer and model, and encode every question, so that what does not fit is told at once."""
        source = _Source(self._settings.model, self._identity.get("model_revision"))
        tokenizer = source.tokenizer()
        encoded = _encode(tokenizer, questions, self._settings)
        model = source.model(self._settings.dtype).to(self._device).eval()
        _check_context(model, questions, encoded, self._settings)
        stops = _stop_tokens(model, tokenizer)
        model.generation_config = transformers.GenerationConfig()
        config = _generation_config(self._settings, stops, tokenizer)
        ids = dict(zip((question.where for question in questions), encoded, strict=True))

        def answer(batch: Sequence[Question], seed: int) -> list[Answer]:
            with _room_for(len(batch), self._settings.model):
                new = _generate(model, [ids[question.where] for question in batch], config, seed)
            return [_answer(tokenizer, tokens, stops) for tokens in new]

        return answer


class _Source:
    """Where tokenizer and model come from; what goes wrong there is told in one line."""

    def __init__(self, model: str, revision: str | None) -> None:
        folder = model_folder(model)
        self._shown = model
        self._name = str(folder) if folder else model
        self._revision = {"revision": revision} if revision else {}
        self._base = adapter_base(folder) if folder else None

    def tokenizer(self) -> Any:
        name = self._name
        if self._base is not None and not (Path(name) / "tokenizer_config.json").is_file():
            name = self._base
        with self._told("tokenizer"):
            return transformers.AutoTokenizer.from_pretrained(name, **self._revision)

    def model(self, dtype: str) -> Any:
        with self._told("model"), _quiet():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                self._name, dtype=dtype, output_loading_info=True, **self._revision
            )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ModelError(
                f"{self._shown}: not a whole causal language model: {len(missing)} weights are missing, "
                f"such as {missing[0]}. A reward model or classifier cannot generate; name the language model."
            )
        return model

    @contextmanager
    def _told(self, part: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a broken folder makes several libraries raise anything at all
            raise ModelError(
                f"{self._shown}: the {part} cannot be loaded: {type(error).__name__}: {one_line(error)}"
            ) from error


def _generate(model: Any, prompts: list[list[int]], config: Any, seed: int) -> list[list[int]]:
    """The new tokens after each prompt. Padding never reaches the answer: it is masked, positions do not count it."""
    width = max(len(ids) for ids in prompts)
    padded = [[config.pad_token_id] * (width - len(ids)) + ids for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    device = model.device
    with torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        tokens = model.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=config,
        )
    new: list[list[int]] = tokens[:, width:].tolist()
    return new


def _answer(tokenizer: Any, tokens: list[int], stops: list[int]) -> Answer:
    ends = [at for at, token in enumerate(tokens) if token in stops]
    kept = tokens[: ends[0]] if ends else tokens
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(text, "stop" if ends else "length")


def _generation_config(settings: Settings, stops: list[int], tokenizer: Any) -> Any:
    pad = next((token for token in (tokenizer.pad_token_id, *stops) if token is not None), 0)  # masked: any will do
    common = {
        "max_new_tokens": settings.max_new_tokens,
        "eos_token_id": stops or None,
        "pad_token_id": pad,
        "num_beams": 1,
        "use_cache": True,
    }
    if settings.temperature == 0:
        return transformers.GenerationConfig(do_sample=False, **common)
    return transformers.GenerationConfig(
        do_sample=True, temperature=settings.temperature, top_p=settings.top_p, top_k=settings.top_k, **common
    )


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token at which an answer is over: chat models have several, in different places."""
    own = model.generation_config.eos_token_id
    several = own if isinstance(own, list) else [own]
    return sorted({token for token in (*several, tokenizer.eos_token_id) if token is not None})


def _encode(tokenizer: Any, questions: Sequence[Question], settings: Settings) -> list[list[int]]:
    templated = tokenizer.chat_template is not None
    encoded = []
    for question in questions:
        if isinstance(question.prompt, list) and not templated:
            raise ModelError(
                f"{question.where}: id {shown(question.id)} is a list of messages, and the tokenizer of "
                f"{settings.model} has no chat template. Give the prompt as one text, or a model with a template."
            )
        if isinstance(question.prompt, str) and not (templated and settings.template == "auto"):
            encoded.append(_encode_text(tokenizer, question.prompt))
        else:
            text = _render(tokenizer, question)
            encoded.append(list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]))
        if not encoded[-1]:
            raise DataError(f"{question.where}: id {shown(question.id)}: the tokenizer makes no token of its prompt.")
    return encoded


def _render(tokenizer: Any, question: Question) -> str:
    prompt = question.prompt
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may raise what it likes
        raise DataError(
            f"{question.where}: id {shown(question.id)}: the chat template refuses these messages: {one_line(error)}"
        ) from error
    return text


def _encode_text(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = list(tokenizer(text, verbose=False)["input_ids"])
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and ids[:2] == [begin, begin]:  # the text brings its own
        ids = ids[1:]
    if (
        len(ids) > 1
        and ids[-1] == end
        and list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])[-1:] != [end]
    ):
        ids = ids[:-1]
    return ids


def _check_context(model: Any, questions: Sequence[Question], encoded: list[list[int]], settings: Settings) -> None:
    config = model.config.get_text_config().to_dict()
    limit = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(limit, int):
        return
    for question, ids in zip(questions, encoded, strict=True):
        if len(ids) + settings.max_new_tokens > limit:
            room = limit - len(ids)
            way_out = f"set --max-new-tokens to at most {room}" if room > 0 else "leave the prompt out"
            raise ModelError(
                f"{question.where}: id {shown(question.id)} has {len(ids)} tokens; with {settings.max_new_tokens} new "
                f"ones that is more than the {limit} positions of {settings.model}. Shorten it, or {way_out}."
            )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"--device {name}: cannot be used here: {one_line(error, 100)}") from error
    return device


@contextmanager
def _room_for(batch: int, model: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{model}: a batch of {batch} does not fit into memory: {one_line(error, 120)} "
            "Lower --batch-size, and begin again with --overwrite."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No report and bar of loading weights in a log file; what is missing becomes an error above."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
