"""The order of prompts in each epoch, also of a run that was broken off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """TRL's RepeatSampler in the order of the epoch that a trainer is in.

    Its shuffle goes on from epoch to epoch, so in a run that is resumed it would begin anew with that of the first.
    """

    def __init__(self, sampler: Any, trainer: Any) -> None:
        self.sampler, self.trainer = sampler, trainer

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        if self.sampler.shuffle:
            generator = torch.Generator().manual_seed(self.sampler.seed)
            for _ in range(int(self.trainer.state.epoch or 0)):
                torch.randperm(self.sampler.num_samples, generator=generator)
            self.sampler.generator = generator
        yield from self.sampler
