"""Reward models that run here: which kind a folder holds, loading, and reading scores off batches of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import torch
from peft import AutoPeftModelForSequenceClassification
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from flipguard.errors import ModelError, shown
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer
from flipguard.weights import adapter_base, identity, model_folder

FORM = "flipguard_form"
"""The key of tokenizer_config.json that says in which form the texts were put when the model was trained here."""

logging.disable_progress_bar()  # of loading shards


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as ids; `types` tells question from answer where a model wants to know."""

    ids: list[int]
    types: list[int] | None = None


class RewardModel:
    """A scorer's function around one model: f(prompts, completions, **columns) -> list of floats."""

    def __init__(self, spec: RewardSpec, model: Any, encode: Callable[[Any, Any], Encoded], limit: int) -> None:
        """The model in evaluation mode, and how it is read.

        Args:
            spec: which reward.
            model: gives `logits` [N, 1] for input_ids and attention_mask [N, T].
            encode: prompt and completion -> ids.
            limit: ids of one text; what is beyond is cut off its end and counted.
        """
        self.model, self.encode, self.limit, self.batch_size = model, encode, limit, spec.batch_size
        self.cut = self.scored = 0

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:  # noqa: ARG002
        """One score per completion, in the model's own units."""
        rows = [self._shortened(self.encode(*pair)) for pair in zip(prompts, completions, strict=True)]
        longest_first = sorted(range(len(rows)), key=lambda at: -len(rows[at].ids))
        scores = [0.0] * len(rows)
        for start in range(0, len(rows), self.batch_size):
            part = longest_first[start : start + self.batch_size]
            for at, score in zip(part, self._scores([rows[at] for at in part]), strict=True):
                scores[at] = score
        return scores

    def told(self) -> str | None:
        """How many texts were cut so far, or None."""
        return f"{self.cut:,} of {self.scored:,} texts cut at {self.limit:,} tokens" if self.cut else None

    def _shortened(self, row: Encoded) -> Encoded:
        self.scored += 1
        if len(row.ids) <= self.limit:
            return row
        self.cut += 1
        return Encoded(row.ids[: self.limit], None if row.types is None else row.types[: self.limit])

    @torch.no_grad()
    def _scores(self, rows: Sequence[Encoded]) -> list[float]:
        """Pad on the right and run the model.

        Classifiers on causal models read the last token that is not `config.pad_token_id`. Where padding is also the
        end token they would skip a real one, so each batch is padded with an id that none of its texts holds.
        """
        device = self.model.device
        pad = self._unused_id(rows)
        if pad is None:
            return [score for row in rows for score in self._scores([row])]
        self.model.config.get_text_config().pad_token_id = pad
        ids = _padded([row.ids for row in rows], pad)
        inputs = {"input_ids": ids, "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0)}
        if rows[0].types is not None:
            inputs["token_type_ids"] = _padded([row.types or [] for row in rows], 0)
        logits: Tensor = self.model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
        scores: list[float] = logits.float().squeeze(-1).tolist()
        return scores

    def _unused_id(self, rows: Sequence[Encoded]) -> int | None:
        """An id that pads `rows` and is in none of them; None where every id is taken and several rows need one."""
        taken = {number for row in rows for number in row.ids}
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        free = next((number for number in range(vocabulary) if number not in taken), None)
        return free if free is not None or len(rows) > 1 else -1


def kind_of_model(spec: RewardSpec) -> str:
    """The kind of the model at `spec.path`, by its configuration and its tokenizer.

    Raises:
        ModelError: there is no such model.
    """
    config, names = _load(AutoConfig, spec), _weight_names(spec)
    if "regression_head.weight" in names or any(name.endswith("RewardModel") for name in config.architectures or []):
        return "regression_head"
    tokenizer = load_tokenizer(spec)
    pairs = tokenizer.sep_token is not None and tokenizer.chat_template is None and FORM not in tokenizer.init_kwargs
    return "text_pair" if pairs else "classifier"


def load_classifier(spec: RewardSpec, **options: Any) -> Any:
    """A sequence classifier with one label, in evaluation mode; an adapter is merged into its base.

    Raises:
        ModelError: it cannot be loaded, has no trained head, or more labels than one.
    """
    dtype = "auto" if spec.dtype == "auto" else getattr(torch, spec.dtype)
    folder = model_folder(spec.path)
    if folder is not None and adapter_base(folder) is not None:
        adapted = _load(AutoPeftModelForSequenceClassification, spec, dtype=dtype, num_labels=1, **options)
        model = adapted.merge_and_unload()
    else:
        model, told = _load(AutoModelForSequenceClassification, spec, dtype=dtype, output_loading_info=True, **options)
        if told["missing_keys"]:
            raise ModelError(
                f"{spec.path}: is no reward model: {min(told['missing_keys'])} is missing. "
                "Train one with `algorithm: reward`, or name a sequence classifier."
            )
    if model.config.num_labels != 1:
        raise ModelError(f"{spec.path}: has {model.config.num_labels} labels; a reward model has one.")
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(spec: RewardSpec) -> Any:
    """The reward model's own tokenizer, which is seldom the policy's."""
    return _load(AutoTokenizer, spec)


def scorer_of(spec: RewardSpec, model: Any, tokenizer: Any, encode: Callable[[Any, Any], Encoded]) -> Scorer:
    """The Scorer around a loaded model."""
    known = orjson.dumps(identity(spec.path), option=orjson.OPT_SORT_KEYS).decode()
    reward = RewardModel(spec, model, encode, _limit(spec, model, tokenizer))
    return Scorer(spec.path, reward, None, known, told=reward.told)


def _limit(spec: RewardSpec, model: Any, tokenizer: Any) -> int:
    config = model.config.get_text_config().to_dict()
    readable = config.get("max_position_embeddings") or config.get("n_positions") or tokenizer.model_max_length
    return int(min(readable, tokenizer.model_max_length, spec.max_tokens or readable))


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _weight_names(spec: RewardSpec) -> set[str]:
    """The names in the index of a sharded model or the header of a single file; none where there is neither."""
    folder = model_folder(spec.path)
    if folder is None:
        return set()
    for index in sorted(folder.glob("*.index.json")):
        return set(orjson.loads(index.read_bytes())["weight_map"])
    single = folder / "model.safetensors"
    if not single.is_file():
        return set()
    from safetensors import safe_open

    with safe_open(single, framework="pt") as file:
        return set(file.keys())


def _load(kind: Any, spec: RewardSpec, **options: Any) -> Any:
    folder = model_folder(spec.path)
    base = None if folder is None or kind is AutoPeftModelForSequenceClassification else adapter_base(folder)
    try:
        return kind.from_pretrained(base or spec.path, revision=spec.revision, **options)
    except Exception as error:  # noqa: BLE001 - the hub, safetensors and transformers raise dozens of types here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{spec.path}: cannot be loaded ({shown(reason, 200)}).") from None
