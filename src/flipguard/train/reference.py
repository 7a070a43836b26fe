"""What π_0 says of the training pairs: computed once, cached on disk, recognised by a fingerprint.

The cache lies in `$FLIPGUARD_CACHE`, by default `~/.cache/flipguard`. A cached file is found only by the same
model, the same token ids and the same precision, so it can never be stale; deleting it costs one forward pass.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from flipguard.errors import ModelError
from flipguard.files import write_bytes
from flipguard.objective import logprobs
from flipguard.processes import is_first
from flipguard.progress import follow
from flipguard.train import together
from flipguard.train.batches import PairCollator, ReferencedPair
from flipguard.train.data import TokenRow
from flipguard.train.models import fingerprint
from flipguard.train.scoring import scorer_for

BATCH_TOKENS = 8_192  # padded tokens per forward pass
SCORING = 1  # raise it when the way of scoring changes, so that cached numbers are made anew


def with_reference(
    model: Any, pairs: Sequence[TokenRow], collator: PairCollator, *, mixed: torch.dtype | None
) -> list[ReferencedPair]:
    """Each pair with log π_0 of both completions.

    Args:
        model: π_0, on the device where it shall run; it is not changed.
        pairs: what to score.
        collator: pads a batch.
        mixed: the dtype of autocast in training, or None, so that reference and policy round alike.

    Raises:
        ModelError: π_0 gives a log-probability that is not finite.
    """
    path = cache_folder() / "reference" / f"{_key(model, pairs, mixed)}.safetensors"
    logps = together.from_first(lambda: _cached(path, len(pairs)))
    if logps is None:
        logps = _score(model, pairs, collator, mixed)
        if is_first():
            write_bytes(path, save({"logps": logps}))
    with together.agreed():
        _check_finite(logps, pairs)
    return [ReferencedPair(pair, *row) for pair, row in zip(pairs, logps.tolist(), strict=True)]


def cache_folder() -> Path:
    """`$FLIPGUARD_CACHE`, by default `flipguard` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FLIPGUARD_CACHE") or Path(home) / "flipguard")


def _score(model: Any, pairs: Sequence[TokenRow], collator: PairCollator, mixed: torch.dtype | None) -> Tensor:
    """[N, 2] sums in nats: chosen, rejected. Batches hold rows of similar length, so little is padding.

    Each process scores its share of the batches, which are the same for any number of processes.
    """
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].length)
    scorer, device = scorer_for(model), next(model.parameters()).device
    sums = torch.zeros(len(pairs), 2, dtype=torch.float64)
    batches = _batches(order, pairs)[together.number() :: together.count()]
    with (
        follow("reference log-probs", sum(map(len, batches)), unit="pair") as advance,
        torch.no_grad(),
        autocast(device, mixed),
    ):
        for indices in batches:
            batch = collator.pad([pairs[index] for index in indices])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logps = logprobs.sequence_logps(scorer.token_logps(scorer.states(model, batch), batch))
            sums[torch.tensor(indices)] = logps.double().cpu().view(2, -1).T
            advance(len(indices))
    return together.summed(sums, device)


def autocast(device: torch.device, mixed: torch.dtype | None) -> AbstractContextManager[Any]:
    """Compute in `mixed` as the trainer does; None changes nothing."""
    return torch.autocast(device.type, dtype=mixed, enabled=mixed is not None)


def _check_finite(logps: Tensor, pairs: Sequence[TokenRow]) -> None:
    if not torch.isfinite(logps).all():
        row = int((~torch.isfinite(logps)).any(dim=1).nonzero()[0])
        raise ModelError(f"{pairs[row].place}: the reference model gives a log-probability that is not finite.")


def _batches(order: list[int], pairs: Sequence[TokenRow]) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for index in order:
        rows = 2 * (len(batches[-1]) + 1)
        if batches[-1] and rows * pairs[index].length > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def _key(model: Any, pairs: Sequence[TokenRow], mixed: torch.dtype | None) -> str:
    digest = hashlib.sha256(f"{SCORING} {fingerprint(model)} {mixed}".encode())
    for pair in pairs:
        digest.update(repr((pair.prompt, pair.completions)).encode())
    return digest.hexdigest()


def _cached(path: Path, count: int) -> Tensor | None:
    try:
        logps = load_file(path)["logps"]
    except (OSError, SafetensorError, KeyError):
        return None  # absent, or damaged: computed anew
    return logps if logps.shape == (count, 2) else None
