"""What the guarded trainers share: the policy's output kept, the term of Eq. 11, its metrics, and π_0 as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled

from flipguard.errors import DataError, FlipGuardError, RecipeError
from flipguard.integrations.trl import options
from flipguard.objective import constraint, divergences, flips

VERSIONS = "trl>=1.16,<1.18"


class KeptOutput:
    """Stands in for the policy while TRL computes its loss, and keeps the log-probs of the forward on our batch.

    So the guard needs no forward of its own, and no copy of TRL's loss.
    """

    def __init__(self, model: Any, input_ids: Tensor) -> None:
        self._model, self._input_ids = model, input_ids
        self._log_probs: Tensor | None = None

    def __call__(self, **batch: Any) -> Any:
        """The policy's forward; TRL calls it with keywords only."""
        output = self._model(**batch)
        if batch.get("input_ids") is self._input_ids and batch.get("fused_lm_head"):
            self._log_probs = output.log_probs
        return output

    @property
    def token_logps(self) -> Tensor:
        """[B, T-1] log pi per token, in nats, 0 outside the completion; differentiable.

        Raises:
            FlipGuardError: TRL's loss made no such forward: this TRL works otherwise.
        """
        if self._log_probs is None:
            raise FlipGuardError(f"this TRL computes its loss in another way. Install the supported one: '{VERSIONS}'")
        return self._log_probs[:, 1 - self._input_ids.size(1) :]  # prompt tuning puts virtual tokens in front


@dataclass(frozen=True)
class Guard:
    """The second term of Eq. 11 with the cross entropy of Eq. 12, on the rows whose answer is wanted."""

    gamma: float
    epsilon: float
    gate: options.Gate
    reduction: options.Reduction
    tolerance: float

    def __call__(
        self, token_logps: Tensor, lengths: Tensor, ref_logps: Tensor, wanted: Tensor
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The term and what to log of it.

        Args:
            token_logps: [B, T-1] log pi per token, in nats, 0 outside the completion.
            lengths: [B] completion tokens.
            ref_logps: [B] sums under π_0, in nats.
            wanted: [B] bool, the rows to guard; the mean goes over all B.

        Returns:
            [] γ · mean of w · D, or None where it is switched off; metrics by name, each one value per row it is about.
        """
        policy = token_logps.sum(dim=1)
        ref = ref_logps.to(policy)
        flipped = flips.likelihood_flips(ref, policy, epsilon=self.epsilon, tolerance=self.tolerance)
        gamma = 0.0 if self.gate == "off" else self.gamma
        term = None
        if gamma:
            divergence = constraint.reduce_tokens(divergences.cross_entropy(token_logps), lengths, self.reduction)
            weights = constraint.gate_weights(flipped, self.gate, dtype=policy.dtype) * wanted
            term = gamma * constraint.gated_divergence(divergence, weights).mean()
        every = torch.ones_like(ref)
        return term, {
            "flip/rate": flipped[wanted],
            "flip/margin": flips.flip_margin(ref, policy.detach(), epsilon=self.epsilon)[wanted],
            "flip/constraint_loss": every * (0.0 if term is None else term.detach()),
            "flip/gamma": every * gamma,
        }


def guard_of(trainer: Any) -> Guard:
    """The guard that the config of a ready trainer asks for.

    Raises:
        RecipeError: the data hold images; the guard has not been tried on them.
    """
    args = trainer.args
    if trainer._is_vision_dataset:  # noqa: SLF001 - TRL has no other name for it
        raise RecipeError(
            f"{type(trainer).__name__}: train_dataset: has images, and the guard reads text only. "
            f"Use TRL's own trainer, or remove the column."
        )
    return Guard(args.gamma, args.epsilon, args.gate, args.reduction, _tolerance(trainer))


def _tolerance(trainer: Any) -> float:
    """Nats that are only rounding: none where both models see the same batch in the same way."""
    args, model, ref = trainer.args, trainer.model, trainer.ref_model
    dtypes = {model.dtype} if ref is None else {model.dtype, ref.dtype}
    if not args.precompute_ref_log_probs and not args.torch_compile and len(dtypes) == 1:
        return 0.0
    mixed = {torch.bfloat16} if args.bf16 else {torch.float16} if args.fp16 else set()
    return max(flips.rounding_tolerance(dtype) for dtype in dtypes | mixed)


def checked(args: Any, kind: type, trainer: type) -> Any:
    """The config of a guarded trainer, which must be one that holds the guard's options.

    Raises:
        RecipeError: it is another one, such as TRL's own.
    """
    if not isinstance(args, kind):
        raise RecipeError(
            f"{trainer.__name__}: args: {type(args).__name__} does not hold the guard's options. "
            f"Use {kind.__name__}, which takes the same and those."
        )
    return args


def reference(given: Mapping[str, Any]) -> Any:
    """The `ref_model` to give to TRL: a copy of the policy as it is now, where TRL would load one from disk.

    TRL reloads `config._name_or_path`, which is another model as soon as weights were changed in memory, or none. Where
    an adapter can be switched off, or the references are computed first, no second model is needed. Under ZeRO-3 the
    weights lie on several devices and cannot be copied; there TRL reloads.

    Args:
        given: the arguments of the trainer, by name.

    Raises:
        RecipeError: there is no model.
        DataError: there are no rows.
    """
    model, ref_model = given["model"], given.get("ref_model")
    if model is None:
        raise RecipeError("model: None cannot be trained. Give a path, a hub id or a model.")
    if isinstance(data := given.get("train_dataset"), Dataset) and not len(data):
        raise DataError("train_dataset: has no rows. Check the split, and what was filtered.")
    adapter = given.get("peft_config") is not None or isinstance(model, PeftModel)
    if ref_model is not None or isinstance(model, str) or adapter or given["args"].precompute_ref_log_probs:
        return ref_model
    return None if is_deepspeed_zero3_enabled() else copy.deepcopy(model).eval()


@contextmanager
def references_in_batch(trainer: Any) -> Iterator[None]:
    """Let TRL's loss read the reference log-probs from the batch."""
    before, trainer.precompute_ref_logps = trainer.precompute_ref_logps, True
    try:
        yield
    finally:
        trainer.precompute_ref_logps = before


def added(result: Any, term: Tensor | None) -> Any:
    """What TRL's compute_loss returned, a loss or (loss, outputs), with the guard's term; untouched without one."""
    if term is None:
        return result
    return (result[0] + term, *result[1:]) if isinstance(result, tuple) else result + term


def kept_metrics(trainer: Any) -> Any:
    """The numbers by name that TRL keeps until the next log, which tells their means."""
    return trainer._metrics["train" if trainer.model.training else "eval"]  # noqa: SLF001 - TRL has no other place


def log_rows(trainer: Any, metrics: Mapping[str, Tensor]) -> None:
    """Enter metrics where TRL keeps its own until the next log: the mean over all processes, once for every row.

    TRL averages what it finds there, so the logged number is the mean over rows, however they fell into batches.
    """
    sums = [torch.stack([rows.sum(), torch.ones_like(rows).sum()]).float() for rows in metrics.values()]
    kept = kept_metrics(trainer)
    everywhere = trainer.accelerator.reduce(torch.stack(sums), reduction="sum").tolist()
    for name, (total, count) in zip(metrics, everywhere, strict=True):
        kept[name].extend([total / max(count, 1)] * int(count))
