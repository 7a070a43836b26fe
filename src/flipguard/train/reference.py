"""What π_0 says of the training pairs: computed once, cached on disk, recognised by a fingerprint.

The cache lies in `$FLIPGUARD_CACHE`, by default `~/.cache/flipguard`. A cached file is found only by the same
model, the same token ids and the same precision, so it can never be stale; deleting it costs one forward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from flipguard.errors import ModelError
from flipguard.files import write_bytes
from flipguard.objective import logprobs
from flipguard.processes import is_first
from flipguard.progress import follow
from flipguard.train import together
from flipguard.train.batches import PairCollator, ReferencedPair
from flipguard.train.caches import cache_folder
from flipguard.train.data import TokenRow
from flipguard.train.models import fingerprint
from flipguard.train.recipe import SpeedSpec
from flipguard.train.speed import reading_of

BATCH_TOKENS = 8_192  # padded tokens per forward pass
SCORING = 2  # raise it when the way of scoring changes, so that cached numbers are made anew
DEFAULT_SPEED = SpeedSpec()
Known = dict[str, Tensor]


def with_reference(
    model: Any,
    pairs: Sequence[TokenRow],
    collator: PairCollator,
    *,
    mixed: torch.dtype | None,
    by_token: bool = False,
    speed: SpeedSpec = DEFAULT_SPEED,
) -> list[ReferencedPair]:
    """Each pair with log π_0 of both completions.

    Args:
        model: π_0, on the device where it shall run; its weights are not changed.
        pairs: what to score.
        collator: pads a batch.
        mixed: the dtype of autocast in training, or None, so that reference and policy round alike.
        by_token: keep what π_0 says of every token of the first completion, too.
        speed: how to read the model, and whether the cache is used.

    Raises:
        ModelError: π_0 gives a log-probability that is not finite.
    """

    def score() -> Known:
        known = _score(model, pairs, collator, mixed, speed)
        return known if by_token else {"logps": known["logps"]}

    if speed.reference_cache == "off":
        known = score()
    else:
        path = (
            cache_folder() / "reference" / f"{_key(model, pairs, mixed)}{'-by-token' if by_token else ''}.safetensors"
        )
        known = _kept(path, lambda: _cached(path, pairs, by_token=by_token), score)
    with together.agreed():
        _check_finite(known["logps"], pairs)
    tokens = torch.split(known["tokens"], _scored(pairs)) if by_token else [None] * len(pairs)
    sums = zip(pairs, known["logps"].tolist(), tokens, strict=True)
    return [ReferencedPair(pair, chosen, rejected, part) for pair, (chosen, rejected), part in sums]


def _kept(path: Path, read: Callable[[], Known | None], score: Callable[[], Known]) -> Known:
    """What the cache holds; where it holds nothing, `score`, which it holds from now on."""
    known = together.from_first(read)
    if known is None:
        known = score()
        if is_first():
            write_bytes(path, save(known, metadata={"sha256": _digest(known)}))
    return known


def _score(
    model: Any, pairs: Sequence[TokenRow], collator: PairCollator, mixed: torch.dtype | None, speed: SpeedSpec
) -> Known:
    """[N, 2] sums in nats, chosen and rejected, and one after the other the tokens of all chosen completions.

    Batches hold rows of similar length, so little is padding. Each process scores its share of the batches, which are
    the same for any number of processes.
    """
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].length)
    device = next(model.parameters()).device
    reading = reading_of(model, speed, device)
    scorer, collator = reading.scorer, replace(collator, layout=reading.layout)
    sums = torch.zeros(len(pairs), 2, dtype=torch.float64)
    scored = _scored(pairs)
    tokens = torch.zeros(sum(scored))
    parts = torch.split(tokens, scored)
    batches = _batches(order, pairs)[together.number() :: together.count()]
    with (
        follow("reference log-probs", sum(map(len, batches)), unit="pair") as advance,
        torch.no_grad(),
        autocast(device, mixed),
    ):
        for indices in batches:
            batch = collator.pad([pairs[index] for index in indices])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logps = scorer.token_logps(scorer.states(model, batch), batch)
            sums[torch.tensor(indices)] = logprobs.sequence_logps(logps).double().cpu().view(2, -1).T
            for index, row in zip(indices, logps.float().cpu(), strict=False):  # the first half: the chosen
                parts[index].copy_(row[: scored[index]])
            advance(len(indices))
    return {"logps": together.summed(sums, device), "tokens": together.summed(tokens, device)}


def _scored(pairs: Sequence[TokenRow]) -> list[int]:
    """Tokens of the first completions that are scored: all, but for the first one where there is no prompt."""
    return [len(pair.completions[0]) - (not pair.prompt) for pair in pairs]


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


def _cached(path: Path, pairs: Sequence[TokenRow], *, by_token: bool) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            known, said = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None  # absent, or damaged: computed anew
    shapes = {"logps": (len(pairs), 2)} | ({"tokens": (sum(_scored(pairs)),)} if by_token else {})
    whole = {name: tuple(tensor.shape) for name, tensor in known.items()} == shapes
    return known if whole and said.get("sha256") == _digest(known) else None


def _digest(known: Known) -> str:
    """SHA-256 of the numbers themselves: a bit that turned over on the disk is not what π_0 said."""
    digest = hashlib.sha256()
    for name, tensor in sorted(known.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
