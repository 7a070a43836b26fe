"""One epoch shared out over processes so that every row counts exactly once, whatever their number.

Processes must take equally many steps, so the last batches are filled up with rows that are read but do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import Dataset, RandomSampler, Sampler

COUNTED = "counted"  # of a batch: [1], how many of its examples count: all of them or none
SLICES = "slices"  # of a batch: the batches it is read in, one after the other, where it is too large for one


class Fillable(Dataset[tuple[Any, bool]]):
    """The rows of `dataset`, each with whether it counts; an index beyond the last is a row that fills up a batch."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, bool]:
        counts = index < len(self.dataset)
        return self.dataset[index if counts else 0], counts


class Filled(Sampler[int]):
    """The indices of `sampler`, then those of rows that do not count, up to a multiple of `multiple`."""

    def __init__(self, sampler: Any, multiple: int) -> None:
        self.sampler, self.multiple = sampler, multiple

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        yield from self.sampler
        yield from range(len(self.sampler), len(self))


class Shuffled(SeedableRandomSampler):
    """The order that one process has, in all of them, for the epoch that `epoch` tells when it begins.

    Not left to the loader, which forgets to tell it to the sampler where several processes resume within an epoch.
    """

    def __init__(self, dataset: Any, *, seed: int | None, epoch: Callable[[], int]) -> None:
        super().__init__(dataset, data_seed=seed)
        self.now = epoch

    def __iter__(self) -> Iterator[int]:
        self.set_epoch(self.now())
        yield from super().__iter__()


def in_order(sampler: Any, trainer: Any) -> Any:
    """`sampler`, or where several processes shuffle, the order that one has, in each epoch that `trainer` is in."""
    if trainer.args.world_size == 1 or not isinstance(sampler, RandomSampler):
        return sampler
    now = partial(_epoch, trainer)
    return Filled(Shuffled(sampler.data_source, seed=trainer.args.data_seed, epoch=now), 1)


def _epoch(trainer: Any) -> int:
    return int(trainer.state.epoch or 0)


def whole(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """All rows at once."""
    return [rows]


@dataclass(frozen=True)
class CountingCollator:
    """Batches the rows that count and says how many they are; where none counts, one row that does not."""

    collator: Callable[[Sequence[Any]], dict[str, Tensor]]
    sliced: Callable[[Sequence[Any]], list[Sequence[Any]]] = whole

    def __call__(self, rows: Sequence[tuple[Any, bool]]) -> dict[str, Any]:
        """What `collator` makes of them, and `counted` [1]; several of those under `slices` where rows are sliced."""
        real = [row for row, counts in rows if counts]
        batches = [
            {**self.collator(part), COUNTED: torch.tensor([len(part) if real else 0])}
            for part in self.sliced(real or [rows[0][0]])
        ]
        return batches[0] if len(batches) == 1 else {SLICES: batches, COUNTED: torch.tensor([len(real)])}
