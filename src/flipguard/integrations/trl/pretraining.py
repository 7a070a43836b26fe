"""Texts that the policy goes on learning beside PPO, so that it forgets less of them (InstructGPT's ptx term)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from flipguard.errors import DataError
from flipguard.files import read_jsonl

MOST_TOKENS = 512  # of a text; the rest is not learned


def read_texts(path: Path, tokenizer: Any) -> list[list[int]]:
    """The token ids of every row's `text`, at most MOST_TOKENS of each.

    Raises:
        DataError: a row has no text of two tokens, or there is none.
    """
    texts = []
    for number, row in read_jsonl(path):
        said = row.get("text")
        ids = tokenizer(said)["input_ids"][:MOST_TOKENS] if isinstance(said, str) else []
        if len(ids) < 2:
            raise DataError(f"{path}:{number}: no 'text' of at least two tokens.")
        texts.append(ids)
    if not texts:
        raise DataError(f"{path}: has no rows; each needs a 'text'.")
    return texts


def loss_on(trainer: Any, model: Any, texts: Sequence[list[int]], number: int, size: int) -> Tensor:
    """[] −log π of the tokens of `size` texts after their first, in nats, a mean over tokens.

    Args:
        trainer: whose reader of log-probs, and device; texts are read at its sampling temperature.
        model: π, as wrapped for training.
        texts: token ids; they are taken in turn.
        number: how many batches of them were read before.
        size: texts in a batch.
    """
    rows = [torch.tensor(texts[(number * size + at) % len(texts)]) for at in range(size)]
    device = trainer.accelerator.device
    ids = pad_sequence(rows, batch_first=True, padding_value=trainer.processing_class.pad_token_id).to(device)
    seen = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    logps = trainer._get_per_token_logps_and_entropies(model, ids, seen, ids.shape[1] - 1)[0]  # noqa: SLF001 - TRL's reader
    mask = seen[:, 1:].bool()
    loss: Tensor = -logps[mask].sum() / mask.sum()
    return loss
