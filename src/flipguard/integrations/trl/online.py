"""The guard of the online trainers: an answer that earns less than π_0's to the same prompt is a flip (Eq. 7)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.integrations import is_deepspeed_zero3_enabled

from flipguard.integrations.trl import guard, options
from flipguard.integrations.trl.rollouts import Rollouts, key_of, local, reference_rollouts, weighted
from flipguard.objective import constraint, divergences, flips

FLIPPED, KNOWN, TARGET, TARGET_MASK = "flip_flipped", "flip_known", "flip_target", "flip_target_mask"


def same_start(trainer: Any) -> None:
    """Give the model of TRL's KL term the weights that the policy has now.

    TRL loads it anew from `config._name_or_path`, which is another model as soon as weights were changed in memory.
    Under ZeRO-3 the weights lie on several devices and cannot be copied; there it stays as TRL loaded it.
    """
    if trainer.ref_model is not None and not is_deepspeed_zero3_enabled():
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(trainer.model.state_dict())


@dataclass
class OnlineGuard:
    """The second term of Eq. 11 for sampled answers, with the cross entropy of Eq. 12 on the better answer.

    Attributes:
        gamma: weight, >= 0; who moves it does so between optimizer steps.
        margin: ε of Eq. 7, in reward units.
        gate: flip (the indicator), always (distillation on the better of both answers), soft (w = a + b · flip), off.
        reduction: over the tokens of the target.
        soft: a and b of the soft gate.
        rollouts: π_0's answers, empty until training starts.
        rewards: [N] what the policy's last answers earned on this process.
        distance: D at each token of the targets, [R, C], from π, ids and attention [R, T] and the targets' mask [R, C];
            None is the cross entropy of Eq. 12.
        samples: how many answers of π_0 to each prompt; their mean reward makes a flip, the best is the target.
        follow: is told how many prompts π_0 will answer, and while it does how many more it has.
        observe: is shown each micro-batch of training: [N] 0 or 1, the flips among the answers that could be graded.
        beside: what else decides π_0's rewards, for the cache: the reward itself, columns it reads.
    """

    gamma: float
    margin: float
    gate: constraint.Gate
    reduction: options.Reduction
    soft: tuple[float, float] = (0.1, 1.0)
    rollouts: Rollouts = field(default_factory=dict)
    rewards: Tensor = field(default_factory=lambda: torch.empty(0))
    distance: Callable[[Any, Tensor, Tensor, Tensor], Tensor] | None = None
    samples: int = 1
    follow: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda _: nullcontext(lambda _: None)
    observe: Callable[[Tensor], None] = lambda _: None
    beside: str = ""

    def ask_reference(self, trainer: Any) -> None:
        """Let π_0 answer every prompt, unless it has."""
        if not self.rollouts:
            self.rollouts = reference_rollouts(trainer)

    def keep_rewards(self, trainer: Any, rewards: Tensor, size: int) -> None:
        """Remember what this process's `size` answers earned; `rewards` [N, F] are those of all processes."""
        earned = weighted(trainer, rewards)
        guard.kept_metrics(trainer)["flip/ungraded"].append(float(earned.isnan().sum()))
        self.rewards = earned[local(trainer, size)]

    def flagged(self, trainer: Any, inputs: list[dict[str, Any]], batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, and of each answer whether it flips, whether both rewards are known, and what it should have been.

        Args:
            trainer: whose padding token and device count.
            inputs: the rows, one for each answer.
            batch: what TRL made of them: completion_ids and completion_mask [B, C].

        Returns:
            the batch with [B] bool flags and the targets [B, C'], the better answer of π_0 and π (Eq. 12).
        """
        asked = [self.rollouts.get(key_of(row)) for row in inputs]
        device = batch["completion_ids"].device
        ref = torch.tensor([torch.nan if item is None else item.reward for item in asked], device=device)
        policy = self.rewards.to(device)
        flipped = flips.reward_flips(ref, policy, epsilon=self.margin)
        best = torch.tensor([torch.nan if item is None else item.best for item in asked], device=device)
        better = flips.reward_flips(best, policy, epsilon=0.0)
        known = ~(ref.isnan() | policy.isnan())
        guard.log_rows(
            trainer,
            {
                "flip/rate": flipped[known].float(),
                "flip/margin": flips.flip_margin(ref, policy, epsilon=self.margin)[known],
                "flip/reward_policy": policy[known],
                "flip/reward_ref": ref[known],
            },
        )
        own = [ids[mask.bool()] for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)]
        targets = [
            torch.tensor(item.ids, device=device) if item is not None and wins else answer
            for item, wins, answer in zip(asked, better.tolist(), own, strict=True)
        ]
        target_mask = pad_sequence([torch.ones_like(ids) for ids in targets], batch_first=True)
        pad = trainer.processing_class.pad_token_id
        target = pad_sequence(targets, batch_first=True, padding_value=pad)
        return {**batch, FLIPPED: flipped, KNOWN: known, TARGET: target, TARGET_MASK: target_mask}

    def added(self, trainer: Any, model: Any, batch: dict[str, Any], loss: Tensor, *, parts: float = 1) -> Tensor:
        """`loss` plus γ · mean of w · D / parts; untouched where the guard is switched off.

        The target is read in a forward of its own, and only for answers with w > 0. Where any process has one, all
        make that forward, those without one on a row that weighs nothing: sharded models wait for each other.

        Args:
            trainer: reads log-probs.
            model: π, as wrapped for training.
            batch: from `flagged`.
            loss: [] TRL's own.
            parts: micro-batches by which the trainer expects the loss to be divided already.
        """
        gamma = 0.0 if self.gate == "off" else self.gamma
        term = loss.new_zeros(())
        if trainer.model.training:
            self.observe(batch[FLIPPED][batch[KNOWN]].to(loss.dtype))
        if gamma:
            weights = constraint.gate_weights(batch[FLIPPED], self.gate, soft=self.soft, dtype=loss.dtype)
            weights = weights * batch[KNOWN] * batch[TARGET_MASK].any(dim=1)  # a masked answer is no target
            if trainer.accelerator.reduce(weights.sum(), reduction="sum") > 0:
                term = gamma * self._divergence(trainer, model, batch, weights) / parts
                loss = loss + term
        every = torch.ones(len(batch[FLIPPED]), device=loss.device)
        guard.log_rows(trainer, {"flip/constraint_loss": every * term.detach() * parts, "flip/gamma": every * gamma})
        kept = guard.kept_metrics(trainer)
        if kept.get("kl"):
            kept["kl/ref"] = list(kept["kl"])  # by our name, too
        return loss

    def _divergence(self, trainer: Any, model: Any, batch: dict[str, Any], weights: Tensor) -> Tensor:
        """[] mean over the whole batch of w · D, from the rows that weigh something."""
        rows = weights.nonzero().flatten()
        if len(rows) == 0:
            rows = torch.zeros(1, dtype=torch.long, device=weights.device)
        ids, attention, mask, which = _distinct(batch, rows)
        if self.distance is None:
            scored = trainer._get_per_token_logps_and_entropies(model, ids, attention, mask.shape[1])  # noqa: SLF001 - its reader
            by_token = divergences.cross_entropy(scored[0] * mask)
        else:
            with trainer.accelerator.autocast():
                by_token = self.distance(model, ids, attention, mask)
        divergence = constraint.reduce_tokens(by_token, mask.sum(dim=1), self.reduction)
        return constraint.gated_divergence(divergence[which], weights[rows]).sum() / len(weights)


def _distinct(batch: dict[str, Any], rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is read of `rows`: a prompt and target that several answers share once, and no column of mere padding.

    Args:
        batch: from `flagged`.
        rows: [R] numbers of rows.

    Returns:
        ids and attention [U, T], the mask [U, C] of the targets at their end, and which of the U each row is, [R].
    """
    parts = [batch[name][rows] for name in ("prompt_ids", "prompt_mask", TARGET, TARGET_MASK)]
    found, which = torch.unique(torch.cat(parts, dim=1), dim=0, return_inverse=True)
    prompt, seen, target, mask = found.split([part.shape[1] for part in parts], dim=1)
    start = seen.shape[1] - int(seen.sum(dim=1).max())  # prompts are padded on the left, targets on the right
    width = max(1, int(mask.sum(dim=1).max()))
    mask = mask[:, :width]
    ids = torch.cat([prompt[:, start:], target[:, :width]], dim=1)
    return ids, torch.cat([seen[:, start:], mask], dim=1), mask, which
