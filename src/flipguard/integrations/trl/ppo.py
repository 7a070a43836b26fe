"""PPO on TRL's rollouts, which has none, guarded: a critic, advantages by GAE and the two clipped losses.

The answers, their rewards, the log-probs of π_old and π_0 and everything around a step come from TRL's RLOOTrainer,
which is asked for one answer to a prompt. Of an answer that no reward grades nothing is learned, as in RLOO and GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from trl import RLOOConfig, RLOOTrainer

from flipguard.errors import RecipeError, shown
from flipguard.integrations.trl import critic, guard
from flipguard.integrations.trl.averaging import Average
from flipguard.integrations.trl.pretraining import loss_on, read_texts
from flipguard.integrations.trl.rewarded import GuardOptions, Rewarded
from flipguard.objective import policy

OLD, VALUES, ADVANTAGES, RETURNS = "ppo_old", "ppo_values", "ppo_advantages", "ppo_returns"
MASK, LENGTH = "ppo_mask", "ppo_length"


@dataclass
class GuardedPPOConfig(GuardOptions, RLOOConfig):
    """TRL's RLOOConfig, the guard's options and PPO's; defaults are those of DeepSpeed-Chat.

    Of TRL's: `beta` weighs the KL in the reward, `epsilon` is the clip range, `num_iterations` the epochs over each
    batch of answers, `normalize_advantages` whitens them, `reward_clip_range` cuts rewards before the KL is added.

    Raises:
        RecipeError: an option that is not possible.
    """

    num_generations: int = field(default=1, metadata={"help": "Answers to a prompt: always 1."})
    num_generations_eval: int | None = field(default=1, metadata={"help": "The same in evaluation: always 1."})
    beta: float = field(default=0.1, metadata={"help": "Weight of the KL to the reference model, >= 0."})
    reward_clip_range: tuple[float, float] | None = field(
        default=(-5.0, 5.0), metadata={"help": "What rewards are cut to, before the KL is added."}
    )
    discount: float = field(default=1.0, metadata={"help": "Of a reward one token later, in [0, 1]."})
    gae_lambda: float = field(default=0.95, metadata={"help": "Of generalised advantage estimation, in [0, 1]."})
    value_clip: float = field(default=0.2, metadata={"help": "How far the critic moves from what it said, > 0."})
    critic: str | None = field(
        default=None,
        metadata={"help": "Where the critic starts: a reward model's folder. By default the policy's trunk, saying 0."},
    )
    critic_learning_rate: float = field(default=5e-6, metadata={"help": "Learning rate of the critic, > 0."})
    ema_decay: float | None = field(
        default=None, metadata={"help": "Keep a moving average of the policy, saved as `ema` in its folder, in [0, 1)."}
    )
    pretraining: str | None = field(
        default=None, metadata={"help": "A JSONL file of rows with a `text` that the policy goes on learning."}
    )
    ptx_coef: float = field(default=1.0, metadata={"help": "Weight of that, >= 0."})

    def __post_init__(self) -> None:
        """Check PPO's options, then the guard's and TRL's, which would not let a prompt have one answer."""
        place = type(self).__name__
        for name in ("num_generations", "num_generations_eval"):
            if vars(self)[name] != 1:
                raise RecipeError(f"{place}: {name}: PPO learns from one answer to a prompt; leave it 1.")
        if self.critic is not None and not isinstance(self.critic, str):
            raise RecipeError(
                f"{place}: critic: {type(self.critic).__name__} is not possible: it must be a folder or hub id. "
                "Write the model by its save_pretrained and give that folder."
            )
        for name in ("epsilon_high", "router_aux_loss_coef"):
            if vars(self)[name] is not None:
                raise RecipeError(f"{place}: {name}: has no effect on PPO; remove it.")
        for name, least, most in (("discount", 0.0, 1.0), ("gae_lambda", 0.0, 1.0)):
            _number(vars(self)[name], f"{place}: {name}", least, most)
        if self.ema_decay is not None:
            _number(self.ema_decay, f"{place}: ema_decay", 0.0, 1.0)
        _number(self.ptx_coef, f"{place}: ptx_coef", 0.0, torch.finfo(torch.float32).max)
        for name in ("value_clip", "critic_learning_rate"):
            _number(
                vars(self)[name], f"{place}: {name}", torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
            )
        batches = self.steps_per_generation or self.gradient_accumulation_steps
        answers = self.generation_batch_size or self.per_device_train_batch_size * batches
        if answers < 2:
            raise RecipeError(f"{place}: per_device_train_batch_size: PPO asks for at least 2 answers at once.")
        self.num_generations, self.num_generations_eval = answers, 1
        super().__post_init__()
        self.num_generations = 1


class GuardedPPOTrainer(Rewarded, RLOOTrainer):
    """PPO (arXiv 1707.06347) with a critic, which counts answers that earn less than π_0's and pulls them back."""

    config = GuardedPPOConfig

    def __init__(self, model: Any, reward_funcs: Any, args: Any = None, *rest: Any, **trainer: Any) -> None:
        """Like GuardedRLOOTrainer.

        Args:
            model: π; as it is when training starts, it is π_0.
            reward_funcs: what RLOOTrainer takes; of an answer with a reward of None nothing is learned.
            args: a GuardedPPOConfig; None is one with the defaults.
            rest: what RLOOTrainer takes.
            trainer: the same, by name.

        Raises:
            RecipeError: `args` is another config, or the weights are to be shared out over processes.
            ModelError: there is no critic.
        """
        made = GuardedPPOConfig("guarded-ppo") if args is None else args
        guard.checked(made, GuardedPPOConfig, type(self))
        opened = critic.opened(made.critic, model)
        super().__init__(model, reward_funcs, made, *rest, **trainer)
        if self.accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP):
            raise RecipeError(f"{type(self).__name__}: DeepSpeed and FSDP cannot hold policy and critic. Use DDP.")
        if made.gradient_checkpointing:
            opened.classifier.gradient_checkpointing_enable(made.gradient_checkpointing_kwargs)
        if made.disable_dropout:
            opened.classifier.eval()
        self.critic = self.accelerator.prepare_model(opened.to(self.model.dtype))
        self.add_callback(critic.CriticSteps(self.critic))
        self.average = None if made.ema_decay is None else Average(self.model, made.ema_decay)
        if self.average is not None:
            self.add_callback(self.average)
        self.texts = [] if made.pretraining is None else read_texts(Path(made.pretraining), self.processing_class)
        self._said: list[Tensor] | None = None

    def sampled(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any]]:
        """What the model says to `prompts` now: token ids, and texts or messages."""
        _, ids, completions = self._generate(prompts)
        return ids, completions

    def create_optimizer(self, model: Any = None) -> Any:
        """Trainer's, and the critic in a group of its own with its own learning rate."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh:
            own = {"lr": self.args.critic_learning_rate, "weight_decay": self.args.weight_decay}
            optimizer.add_param_group({"params": list(critic.learnable(self.critic)), **own})
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002
        """Write the policy as a plain model folder, the critic in a folder `critic` within it."""
        super().save_model(output_dir, _internal_call)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        critic.saved(self.critic, folder)
        if self.average is not None:
            (self.average.keep if _internal_call else self.average.save)(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        critic.restored(self.critic, Path(resume_from_checkpoint))
        if self.average is not None:
            self.average.restore(Path(resume_from_checkpoint))

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        scored = super()._get_per_token_logps_and_entropies(*args, **options)
        if self._said is not None:
            self._said.append(scored[0])
        return scored

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._said = []
        try:
            batch = super()._generate_and_score_completions(inputs)
            old, *ref = self._said  # π_old first, then π_0 where beta asks for it
        finally:
            self._said = None
        return {**batch, **self._episodes(batch, old, ref[0] if ref else old)}

    @torch.no_grad()
    def _episodes(self, batch: dict[str, Any], old: Tensor, ref: Tensor) -> dict[str, Tensor]:
        """What the losses need of sampled answers, each [B, T], and the mean length of an answer [B]."""
        scores = self.guard.rewards.to(old.device)
        mask = batch["completion_mask"].bool() & ~scores.isnan().unsqueeze(1)
        size = self.args.per_device_train_batch_size
        parts = zip(*(torch.split(tensor, size) for tensor in self._read(batch)), strict=True)
        values = torch.cat([self._values(ids, seen, mask.shape[1]) for ids, seen in parts]).masked_fill(~mask, 0.0)
        if self.reward_clip_range:
            scores = scores.clamp(*self.reward_clip_range)
        rewards = policy.token_rewards(scores, old, ref, mask, kl_coef=self.beta, score_clip=float("inf"))
        gae = policy.gae(rewards, values, mask, discount=self.args.discount, gae_lambda=self.args.gae_lambda)
        advantages, (mean, missed) = gae.advantages, self._moments(gae.advantages, mask)
        spread = self._moments(gae.returns, mask)[1]
        guard.log_rows(self, {"ppo/value_explained_variance": (1 - missed / spread)[spread > 0]})
        if self.normalize_advantages:
            advantages = policy.whitened(advantages, mean, missed, mask)
        answers, tokens = self.accelerator.reduce(old.new_tensor([len(mask), mask.sum()]), reduction="sum")
        length = (tokens / answers).clamp(min=1).expand(len(mask))
        told = {OLD: old, VALUES: values, ADVANTAGES: advantages, RETURNS: gae.returns}
        return {**told, MASK: mask, LENGTH: length}

    def _moments(self, numbers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over the real tokens of all processes."""
        real = numbers[mask].double()
        sums = torch.stack([real.new_tensor(real.numel()), real.sum(), real.square().sum()])
        count, total, squares = self.accelerator.reduce(sums, reduction="sum")
        mean = total / count.clamp(min=1)
        return mean.to(numbers.dtype), (squares / count.clamp(min=1) - mean**2).clamp(min=0).to(numbers.dtype)

    def _read(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        ids, mask = (
            torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], dim=1) for name in ("ids", "mask")
        )
        return ids, mask

    def _values(self, ids: Tensor, mask: Tensor, width: int) -> Tensor:
        with self.accelerator.autocast():
            values: Tensor = self.critic(ids, mask, width)
        return values.float()

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """[] the actor's and the critic's loss, each a mean over the tokens of all answers sampled together."""
        mask = inputs[MASK]
        ids, seen = self._read(inputs)
        logps, entropy, _ = self._get_per_token_logps_and_entropies(
            model, ids, seen, mask.shape[1], compute_entropy=True
        )
        values = self._values(ids, seen, mask.shape[1])
        old, advantages = inputs[OLD], inputs[ADVANTAGES]
        actor = policy.clipped_policy_loss(logps, old, advantages, mask, clip_range=self.args.epsilon)
        critics = policy.clipped_value_loss(
            values, inputs[VALUES], inputs[RETURNS], mask, clip_range=self.args.value_clip
        )
        clipped = ((logps - old).exp() - 1).abs() > self.args.epsilon
        told = {"policy_loss": actor, "value_loss": critics, "clip_fraction": clipped.float(), "entropy": entropy}
        told |= {"advantage": advantages, "return": inputs[RETURNS], "value": values}
        guard.log_rows(self, {f"ppo/{name}": rows.detach()[mask] for name, rows in told.items()})
        loss = (actor + critics).sum() / (len(mask) * inputs[LENGTH][0])
        if self.texts and self.model.training:
            loss = loss + self.args.ptx_coef * self._pretraining(model, len(mask))
        return self.guard.added(self, model, inputs, loss)

    def _pretraining(self, model: Any, size: int) -> Tensor:
        """[] −log π per token of the next `size` texts, others in each micro-batch and process."""
        cut = self.args.gradient_accumulation_steps
        before = self.state.global_step * cut + self._step % cut
        number = before * self.accelerator.num_processes + self.accelerator.process_index
        loss = loss_on(self, model, self.texts, number, size)
        guard.log_rows(self, {"ppo/ptx_loss": loss.detach()[None]})
        return loss


def _number(value: Any, place: str, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        span = f"between {least:g} and 1" if most == 1 else "of at least 0" if least == 0 else "above 0"
        raise RecipeError(f"{place}: {shown(value)} is not possible: it must be a number {span}.")
