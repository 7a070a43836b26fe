"""Which of the faster ways a recipe wants and a model allows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch

from flipguard.errors import ModelError
from flipguard.processes import is_first
from flipguard.train.batches import Layout
from flipguard.train.recipe import SpeedSpec
from flipguard.train.scoring import Scorer, reads_ahead, scorer_for

CPU_SLICE, GPU_SLICE = 1536, 16_384
"""Tokens of a slice: as many as keep the products efficient. Fewer only cost, more only take memory."""
UNITS_ROW = 2048
"""Tokens of a row where attention goes unit by unit: the longer, the less padding; a mask has its square."""


@dataclass(frozen=True)
class Reading:
    """How a model is read: off which states, in which layout, and why not faster (empty where nothing is missing)."""

    scorer: Scorer
    layout: Layout
    missing: str = ""


def reading_of(model: Any, speed: SpeedSpec, device: torch.device) -> Reading:
    """The fastest way that is wanted and gives the numbers of the plain one, tried on a few tokens of `model`.

    Args:
        model: on any device.
        speed: what is wanted.
        device: where the model will be read.

    Raises:
        ModelError: the model reads ahead, so it is no language model.
    """
    check_causal(model)
    wanted = Layout(share=speed.prefix_sharing == "auto", fill=speed.packing == "auto")
    by_units = device.type == "cpu"
    scorer = scorer_for(model, tiled_head=speed.tiled_head == "auto", packed=wanted.is_packed, by_units=by_units)
    missing = []
    if speed.tiled_head == "auto" and scorer.trunk is None:
        missing.append("its head cannot be used alone, so logits are built for all tokens")
    if wanted.is_packed and scorer.masks is None:
        missing.append("it takes no masks of ours, so prompts are not shared and rows are padded")
        wanted = Layout()
    if scorer.masks is not None and scorer.masks.by_units:
        wanted = replace(wanted, row_tokens=UNITS_ROW)
    return Reading(scorer, wanted, "; ".join(missing))


def slice_tokens(speed: SpeedSpec, device: torch.device) -> int | None:
    """How many tokens are read at once; None: a batch, whatever its size."""
    if speed.slice_tokens == "off":
        return None
    return (CPU_SLICE if device.type == "cpu" else GPU_SLICE) if speed.slice_tokens == "auto" else speed.slice_tokens


def check_causal(model: Any) -> None:
    """Refuse a model that says a token after having read it.

    Raises:
        ModelError: it does, as encoders do.
    """
    if reads_ahead(model):
        raise ModelError(
            f"{model.config._name_or_path}: reads later tokens to say an earlier one, as encoders do "  # noqa: SLF001
            f"({model.config.model_type}); its log-probs are no likelihoods. Choose a causal language model."
        )


def readings_of(policy: Any, reference: Any, speed: SpeedSpec, device: torch.device) -> tuple[Reading, Scorer | None]:
    """How the policy is read, and π_0 beside it where there is one; both read the same batches.

    What a recipe wants and a model does not allow is told in one line.
    """
    reading = reading_of(policy, speed, device)
    beside = None if reference is None else reading_of(reference, speed, device)
    if beside is not None and beside.layout != reading.layout:
        reading = replace(reading, layout=Layout(), missing=reading.missing or beside.missing)
    if reading.missing and is_first():
        sys.stderr.write(f"speed: {type(policy).__name__}: {reading.missing}.\n")
    return reading, None if beside is None else beside.scorer
