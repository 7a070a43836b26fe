"""Guarded preference training on transformers.Trainer, through the hook it documents: `compute_loss`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer

from flipguard.objective import logprobs
from flipguard.objective.divergences import DIVERGENCES, cross_entropy
from flipguard.objective.unpaired import reference_point
from flipguard.train.batches import PairCollator, first_completions, in_slices
from flipguard.train.guarded_loss import GuardedLoss
from flipguard.train.reference import autocast
from flipguard.train.scoring import Batch, Scorer
from flipguard.train.sharding import COUNTED, SLICES, CountingCollator, Fillable, Filled, in_order
from flipguard.train.together import meet
from flipguard.train.unpaired import UnpairedLoss, mismatched


@dataclass(frozen=True)
class Reference:
    """π_0 itself, for divergences over the whole vocabulary; cross entropy does not need it."""

    model: Any
    scorer: Scorer


class OfflineTrainer(Trainer):
    """Trains on preference pairs whose reference log-probs are known, and pulls back where a pair flips."""

    def __init__(
        self,
        *,
        guarded_loss: GuardedLoss | UnpairedLoss,
        scorer: Scorer,
        mixed: torch.dtype | None = None,
        reference: Reference | None = None,
        train_dataset: Any,
        eval_dataset: Any,
        data_collator: Any,
        **trainer: Any,
    ) -> None:
        """Like Trainer, and with Eq. 11.

        Args:
            guarded_loss: Eq. 11.
            scorer: reads log-probs off the model.
            mixed: the dtype of autocast, or None: trunk, head and reference compute in it alike.
            reference: π_0, where the divergence needs its whole distribution.
            train_dataset: pairs.
            eval_dataset: pairs, or None.
            data_collator: makes a batch of pairs; a PairCollator, in slices if its layout says so.
            trainer: what transformers.Trainer takes.
        """
        super().__init__(
            train_dataset=Fillable(train_dataset),
            eval_dataset=None if eval_dataset is None else Fillable(eval_dataset),
            data_collator=CountingCollator(data_collator),
            **trainer,
        )
        most = data_collator.layout.slice_tokens if isinstance(data_collator, PairCollator) else None
        if most is not None and not self._is_sharded():
            self.data_collator = CountingCollator(data_collator, partial(in_slices, tokens=most))
        self.guarded_loss, self.scorer, self.mixed, self.reference = guarded_loss, scorer, mixed, reference
        self.loss_is_scaled_for_ga = True  # by the pairs of the whole step, over micro-batches and processes
        self._sums: dict[str, dict[str, Tensor]] = {"train": {}, "eval": {}}

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Forward and backward of a batch, slice by slice; gradients are exchanged after the last."""
        slices = inputs.get(SLICES, [inputs])
        losses = []
        for number, part in enumerate(slices, 1):
            with nullcontext() if number == len(slices) else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - Trainer's signature
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Eq. 11 on one batch of pairs; its metrics are kept until the next `log`.

        In training it is this batch's part of the mean over the `num_items_in_batch` pairs of the whole optimizer
        step, times the number of processes, since gradients are averaged over them.
        """
        counted = inputs[COUNTED]
        with autocast(self.args.device, self.mixed):
            if self.guarded_loss.completions == 1:
                inputs = {**inputs, "z_0": self._reference_point(model, inputs)}
            states = self.scorer.states(model, inputs)
            token_logps = self.scorer.token_logps(states, inputs)
            divergence = self._divergence(states, token_logps, inputs)
        loss, metrics = self.guarded_loss(token_logps, inputs, divergence)
        if num_items_in_batch is None:
            self._remember({**metrics, "loss": loss.detach().expand(len(inputs["ref_logps"]))}, counted, "eval")
        else:
            self._remember(metrics, counted, "train")
            self.guarded_loss.guard.strength.observe(metrics["flip/rate"], counts=counted)
            loss = loss * (counted[0] * self.args.world_size / num_items_in_batch).to(loss.dtype)
        return (loss, {}) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """The micro-batches of one optimizer step, and how many pairs count in it over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counted = torch.tensor(sum(int(batch[COUNTED]) for batch in batches), device=device)
        return batches, self.accelerator.reduce(counted, reduction="sum")

    def prediction_step(
        self,
        model: Any,
        inputs: Batch,
        prediction_loss_only: bool,  # noqa: ARG002, FBT001 - Trainer's signature
        ignore_keys: list[str] | None = None,  # noqa: ARG002 - Trainer's signature
    ) -> tuple[Tensor, None, None]:
        """The loss on a batch of the evaluation set."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            losses = [self.compute_loss(model, part) * part[COUNTED][0] for part in inputs.get(SLICES, [inputs])]
        return torch.stack(losses).sum() / inputs[COUNTED][0].clamp(min=1), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of all metrics since the last call, over the pairs of all processes, to what Trainer logs."""
        if "eval_loss" in logs or "loss" in logs:
            mode, prefix = ("eval", "eval_") if "eval_loss" in logs else ("train", "")
            for name, total in self._sums[mode].items():
                gathered = self.accelerator.reduce(total, reduction="sum")
                if gathered[1] > 0:
                    logs[f"{prefix}{name}"] = (gathered[0] / gathered[1]).item()
            self._sums[mode] = {}
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """What Trainer estimates, of all slices."""
        return sum(super(OfflineTrainer, self).floating_point_ops(part) for part in inputs.get(SLICES, [inputs]))

    def _is_sharded(self) -> bool:
        """Whether weights are shared out, so that all processes must make equally many passes."""
        return self.accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)

    def _divergence(self, states: Tensor, token_logps: Tensor, inputs: Batch) -> Tensor:
        """[B, C] D per token of the chosen half."""
        if self.reference is None:
            return cross_entropy(token_logps.chunk(self.guarded_loss.completions)[0])
        chosen = first_completions(inputs, self.guarded_loss.completions)
        with torch.no_grad():
            ref_states = self.reference.scorer.states(self.reference.model, chosen)
        return logprobs.token_divergences(
            states,
            self.scorer.head,
            ref_states,
            self.reference.scorer.head,
            chosen["places"],
            DIVERGENCES[self.guarded_loss.guard.spec.divergence],
        )

    def _reference_point(self, model: Any, inputs: Batch) -> Tensor:
        """[1] z_0 of KTO, over the batch on all processes."""
        batch = mismatched(inputs)
        with torch.no_grad():
            logps = logprobs.sequence_logps(self.scorer.token_logps(self.scorer.states(model, batch), batch))
        ratios = (logps - batch["ref_logps"]).double()
        total = torch.stack([ratios.sum(), ratios.new_tensor(len(ratios))]) * (inputs[COUNTED] > 0)
        total = self.accelerator.reduce(total, reduction="sum")
        return reference_point(total[:1] / total[1])

    def _remember(self, metrics: dict[str, Tensor], counted: Tensor, mode: str) -> None:
        """Add values, one per row they speak of, to the running (sum, count) of each metric, if the batch counts."""
        for name, values in metrics.items():
            rows = (counted[0] > 0) * len(values)
            total = torch.stack([values.double().sum().where(counted[0] > 0, 0.0), rows.double()])
            self._sums[mode][name] = self._sums[mode].get(name, torch.zeros_like(total)) + total

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if self.args.world_size == 1 or self.args.dataloader_drop_last:
            return sampler
        return Filled(in_order(sampler, self), self._train_batch_size * self.args.world_size)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        meet()  # what makes a checkpoint whole is written after this, when every process has written its part

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return Filled(SequentialSampler(eval_dataset), self.args.eval_batch_size * self.args.world_size)
