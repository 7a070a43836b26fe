"""What π_0 says to each prompt and what it earns: asked once, before training, by the trainer's sampler and rewards.

At that moment π is still π_0, so the guard needs no second model, neither in memory nor on disk.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """One answer: its token ids, and its reward, NaN where no reward function could grade it."""

    ids: list[int]
    reward: float


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
    """Each row once, of training and evaluation data."""
    first: dict[str, dict[str, Any]] = {}
    for name in ("train_dataset", "eval_dataset"):
        dataset = vars(trainer)[name]
        for part in dataset.values() if isinstance(dataset, dict) else [] if dataset is None else [dataset]:
            if isinstance(part, IterableDataset):
                raise RecipeError(
                    f"{type(trainer).__name__}: {name}: is a stream, and the guard asks the reference model about each "
                    "prompt before training. Give a data set of known length."
                )
            for row in part:
                first.setdefault(key_of(row), row)
    return list(first.values())


def _ask(trainer: Any, rows: list[dict[str, Any]]) -> Rollouts:
    """Each process asks for its share, all in equally many calls of equal size, since the trainer gathers in each."""
    processes, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    repeats = trainer.num_generations if trainer.use_vllm else 1  # vLLM's path wants whole groups of one prompt
    size = max(1, trainer.args.per_device_train_batch_size)
    share = -(-len(rows) // (processes * size)) * size
    mine = [rows[number % len(rows)] for number in range(rank * share, (rank + 1) * share)]
    found: list[tuple[str, list[int], float]] = []
    for start in range(0, share, size):
        found += _ask_batch(trainer, mine[start : start + size], repeats)
    everywhere = gather_object(found) if processes > 1 else found
    return {key: Rollout(ids, reward) for key, ids, reward in everywhere}


def _ask_batch(trainer: Any, rows: list[dict[str, Any]], repeats: int) -> list[tuple[str, list[int], float]]:
    inputs = [row for row in rows for _ in range(repeats)]
    prompts = [row["prompt"] for row in inputs]
    ids, completions = trainer.sampled(prompts)
    rewards = trainer._calculate_rewards(inputs, prompts, completions, ids)  # noqa: SLF001 - TRL has no public scorer
    total = weighted(trainer, rewards)[local(trainer, len(inputs))].tolist()
    return [(key_of(row), list(ids[at * repeats]), total[at * repeats]) for at, row in enumerate(rows)]


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
        lines = [{"key": key, "ids": item.ids, "reward": item.reward} for key, item in rollouts.items()]
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
        nan = float("nan")
        return {row["key"]: Rollout(row["ids"], nan if row["reward"] is None else row["reward"]) for row in lines}


def _cache(trainer: Any, rows: list[dict[str, Any]]) -> _Cache:
    """The file that `reference_cache` names, or in a folder that it names the one of this fingerprint."""
    said, fingerprint = Path(trainer.args.reference_cache), _fingerprint(trainer, rows)
    if not said.is_dir():
        return _Cache(said, fingerprint, named=False)
    name = hashlib.sha256(orjson.dumps(fingerprint, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return _Cache(said / f"{name}.jsonl", fingerprint, named=True)


def _digest(lines: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n")
    return digest.hexdigest()
