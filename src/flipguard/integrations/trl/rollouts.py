"""What π_0 says to each prompt and what it earns: asked once, before training, by the trainer's sampler and rewards.

At that moment π is still π_0, so the guard needs no second model, neither in memory nor on disk.
"""

from __future__ import annotations

import copy
import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import torch
from accelerate.utils import gather_object
from datasets import IterableDataset

from flipguard.errors import DataError, RecipeError
from flipguard.files import read_jsonl, write_jsonl

SCHEMA = "flipguard.reference/2"
SAMPLING = (
    *("max_completion_length", "temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "generation_kwargs"),
)
LOGS = ("_metrics", "_pending_extra_logs", "_pending_metrics")


@dataclass(frozen=True, slots=True)
class Rollout:
    """π_0 on one prompt; NaN where no reward function could grade what it says.

    Attributes:
        ids: tokens of its answer, of several the best.
        reward: what it earns, of several answers their mean: what makes a flip (Eq. 7).
        best: what that answer earns.
    """

    ids: list[int]
    reward: float
    best: float


Rollouts = dict[str, Rollout]
"""π_0's answer to each prompt, by `key_of` its row."""


def key_of(row: dict[str, Any]) -> str:
    """What identifies a row: its prompt, and the columns that its reward may depend on."""
    said = orjson.dumps(row, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return hashlib.sha256(said).hexdigest()


def reference_rollouts(trainer: Any) -> Rollouts:
    """π_0's answers to all prompts of the trainer's data; from `reference_cache` where that holds them.

    Args:
        trainer: a guarded RLOO or GRPO trainer that has not trained yet.

    Raises:
        RecipeError: the data are a stream, whose prompts cannot be known beforehand.
        DataError: the cache is damaged, or belongs to another model, other prompts, sampling or rewards.
    """
    rows = _rows(trainer)
    cache = None if trainer.args.reference_cache is None else _cache(trainer, rows)
    known = None if cache is None else cache.read()
    if cache is not None and all(gather_object([known is not None])) and known is not None:
        return known
    with _as_if_nothing_happened(trainer):
        rollouts = _ask(trainer, rows)
    if cache is not None and trainer.accelerator.is_main_process:
        cache.write(rollouts)
    return rollouts


def _rows(trainer: Any) -> list[dict[str, Any]]:
    """Each row once, of the training data that will be seen and of the evaluation data."""
    first: dict[str, dict[str, Any]] = {}
    for name in ("train_dataset", "eval_dataset"):
        dataset = vars(trainer)[name]
        for part in dataset.values() if isinstance(dataset, dict) else [] if dataset is None else [dataset]:
            if isinstance(part, IterableDataset):
                raise RecipeError(
                    f"{type(trainer).__name__}: {name}: is a stream, and the guard asks the reference model about each "
                    "prompt before training. Give a data set of known length."
                )
            for row in part.select(_seen(trainer)) if name == "train_dataset" else part:
                _check_text(row, f"{type(trainer).__name__}: {name}")
                first.setdefault(key_of(row), row)
    return list(first.values())


def _check_text(row: dict[str, Any], place: str) -> None:
    """Neither a column nor a message holds images.

    Raises:
        RecipeError: one does.
    """
    said = row["prompt"]
    parts = [message.get("content") for message in said] if isinstance(said, list) else []
    kinds = {piece.get("type") for part in parts if isinstance(part, list) for piece in part}
    if row.get("image") is not None or row.get("images") or kinds - {"text"}:
        raise RecipeError(
            f"{place}: has prompts with images, and the guard reads text only. "
            "Use TRL's own trainer, or leave these out."
        )


def _seen(trainer: Any) -> list[int]:
    """The rows that training will see: all, or of a run that ends before its first epoch does those of its steps."""
    args, sampler = trainer.args, trainer._get_train_sampler()  # noqa: SLF001 - TRL has no public one
    needed = args.max_steps * args.gradient_accumulation_steps * args.generation_batch_size
    if args.max_steps <= 0 or needed >= len(sampler):
        return list(range(len(trainer.train_dataset)))
    return sorted(set(islice(iter(sampler), needed)))


def _ask(trainer: Any, rows: list[dict[str, Any]]) -> Rollouts:
    """Each process asks for its share, all in equally many calls of equal size, since the trainer gathers in each."""
    processes, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    group = trainer.num_generations if trainer.use_vllm else 1  # vLLM's path wants whole groups of one prompt
    repeats = -(-trainer.guard.samples // group) * group
    size = max(1, trainer.args.per_device_train_batch_size // repeats)
    share = -(-len(rows) // (processes * size)) * size
    mine = [rows[number % len(rows)] for number in range(rank * share, (rank + 1) * share)]
    found: list[tuple[str, Rollout]] = []
    with trainer.guard.follow(share) as advance:
        for start in range(0, share, size):
            found += _ask_batch(trainer, mine[start : start + size], repeats)
            advance(size)
    return dict(gather_object(found) if processes > 1 else found)


def _ask_batch(trainer: Any, rows: list[dict[str, Any]], repeats: int) -> list[tuple[str, Rollout]]:
    inputs = [row for row in rows for _ in range(repeats)]
    prompts = [row["prompt"] for row in inputs]
    ids, completions = trainer.sampled(prompts)
    rewards = trainer._calculate_rewards(inputs, prompts, completions, ids)  # noqa: SLF001 - TRL has no public scorer
    earned = weighted(trainer, rewards)[local(trainer, len(inputs))].tolist()
    groups = [slice(at * repeats, at * repeats + trainer.guard.samples) for at in range(len(rows))]
    return [(key_of(row), summary(ids[group], earned[group])) for row, group in zip(rows, groups, strict=True)]


def summary(answers: Sequence[Sequence[int]], rewards: Sequence[float]) -> Rollout:
    """What π_0 earns with a prompt, and its best answer; answers without a reward (NaN) count nowhere.

    >>> summary([[1], [2], [3]], [0.2, 0.6, math.nan])
    Rollout(ids=[2], reward=0.4, best=0.6)
    """
    graded = [(reward, at) for at, reward in enumerate(rewards) if not math.isnan(reward)]
    if not graded:
        return Rollout(list(answers[0]), math.nan, math.nan)
    best, at = max(graded, key=lambda item: item[0])
    return Rollout(list(answers[at]), sum(reward for reward, _ in graded) / len(graded), best)


def weighted(trainer: Any, rewards: torch.Tensor) -> torch.Tensor:
    """[N] the sum that TRL trains on; NaN where no reward function graded the answer.

    Args:
        trainer: whose `reward_weights` [F] count.
        rewards: [N, F] by reward function, NaN where it returned None.
    """
    total = (rewards * trainer.reward_weights.to(rewards.device)).nansum(dim=1)
    return total.masked_fill(rewards.isnan().all(dim=1), torch.nan)


def local(trainer: Any, size: int) -> slice:
    """The rows of this process among the gathered ones, `size` of each process."""
    rank: int = trainer.accelerator.process_index
    return slice(rank * size, (rank + 1) * size)


@contextmanager
def _as_if_nothing_happened(trainer: Any) -> Iterator[None]:
    """Sample with random numbers of our own, and leave the trainer's, its metrics and its counters as they were."""
    kept = {name: copy.deepcopy(vars(trainer)[name]) for name in LOGS}
    seen, training, state = trainer.state.num_input_tokens_seen, trainer.model.training, random.getstate()
    device = trainer.accelerator.device
    if trainer.model.device != device:  # DeepSpeed moves it when training starts
        trainer.model.to(device)
    trainer.model.train()  # as when the policy samples
    try:
        with torch.random.fork_rng():
            torch.manual_seed(trainer.args.seed + trainer.accelerator.process_index)
            random.seed(trainer.args.seed)
            yield
    finally:
        random.setstate(state)
        vars(trainer).update(kept)
        trainer.state.num_input_tokens_seen = seen
        trainer.model.train(training)


def _fingerprint(trainer: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    model = hashlib.sha256()
    for name, tensor in sorted(trainer.model.state_dict().items()):
        model.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        model.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    prompts = hashlib.sha256("".join(key_of(row) for row in rows).encode())
    return {
        "model": model.hexdigest(),
        "prompts": prompts.hexdigest(),
        "sampling": {name: vars(trainer.args)[name] for name in SAMPLING},
        "seed": trainer.args.seed,
        "samples": trainer.guard.samples,
        "rewards": list(trainer.reward_func_names),
        "reward_weights": trainer.reward_weights.tolist(),
        "beside": trainer.guard.beside,
    }


@dataclass(frozen=True, slots=True)
class _Cache:
    """Answers on disk: a header that says whose they are, then one line for each.

    Args:
        path: the file.
        fingerprint: whose answers are wanted.
        named: whether the file is named by its fingerprint, so that one that does not fit is made anew.
    """

    path: Path
    fingerprint: dict[str, Any]
    named: bool

    def read(self) -> Rollouts | None:
        """The answers; None where there are none that can be used."""
        if not self.path.exists():
            return None
        try:
            return self._read()
        except DataError:
            if self.named:
                return None
            raise

    def write(self, rollouts: Rollouts) -> None:
        lines = [{"key": key, **asdict(item)} for key, item in rollouts.items()]
        write_jsonl(self.path, [{"schema": SCHEMA, **self.fingerprint, "sha256": _digest(lines)}, *lines])

    def _read(self) -> Rollouts:
        header, *lines = [row for _, row in read_jsonl(self.path)] or [{}]
        wanted = orjson.loads(orjson.dumps({"schema": SCHEMA, **self.fingerprint}))
        strange = [name for name in wanted if header.get(name) != wanted[name]]
        if strange:
            raise DataError(
                f"{self.path}: reference answers of another run: {', '.join(strange)} differ. "
                "Name another reference_cache, or delete the file."
            )
        if header.get("sha256") != _digest(lines):
            raise DataError(f"{self.path}: reference answers that were changed or cut on the disk. Delete the file.")
        return {row["key"]: Rollout(row["ids"], _number(row["reward"]), _number(row["best"])) for row in lines}


def _cache(trainer: Any, rows: list[dict[str, Any]]) -> _Cache:
    """The file that `reference_cache` names, or in a folder that it names the one of this fingerprint."""
    said, fingerprint = Path(trainer.args.reference_cache), _fingerprint(trainer, rows)
    if not said.is_dir():
        return _Cache(said, fingerprint, named=False)
    name = hashlib.sha256(orjson.dumps(fingerprint, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return _Cache(said / f"{name}.jsonl", fingerprint, named=True)


def _number(said: float | None) -> float:
    return math.nan if said is None else said


def _digest(lines: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n")
    return digest.hexdigest()
