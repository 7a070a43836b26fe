"""Guarded RLOO and GRPO: TRL's own trainer where the guard is silent, Eq. 12 by hand where it speaks."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from flipguard.errors import DataError, RecipeError
from flipguard.integrations.trl import (
    GuardedGRPOConfig,
    GuardedGRPOTrainer,
    GuardedRLOOConfig,
    GuardedRLOOTrainer,
)
from flipguard.integrations.trl.online import FLIPPED, KNOWN, TARGET, TARGET_MASK, OnlineGuard
from flipguard.integrations.trl.rollouts import Rollout, key_of

KINDS = {
    "rloo": (RLOOConfig, RLOOTrainer, GuardedRLOOConfig, GuardedRLOOTrainer),
    "grpo": (GRPOConfig, GRPOTrainer, GuardedGRPOConfig, GuardedGRPOTrainer),
}


@pytest.fixture
def make_trainer(tmp_path, arguments, build):
    def make(kind, *, guarded=True, trainer=None, **config):
        plain_config, plain, our_config, ours = KINDS[kind]
        settings = {**arguments, "num_generations": 2, "max_completion_length": 8, "max_steps": 3, "seed": 5, **config}
        settings["per_device_train_batch_size"] = config.get("per_device_train_batch_size", 4)
        made = (our_config if guarded else plain_config)(str(tmp_path / "out"), **settings)
        return build(trainer or (ours if guarded else plain), made)

    return make


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_zero_gamma_trains_to_the_weights_of_trl_bit_for_bit_and_still_counts(make_trainer, same, kind):
    plain = make_trainer(kind, guarded=False)
    plain.train()
    counted = make_trainer(kind, gamma=0.0)
    counted.train()
    assert same(weights(plain), weights(counted))
    (first, *_), last = counted.state.log_history, counted.state.log_history[-2]
    assert {"flip/rate", "flip/margin", "flip/reward_policy", "flip/reward_ref", "flip/gamma"} <= first.keys()
    assert 0 < first["flip/rate"] < 1
    assert last["flip/gamma"] == last["flip/constraint_loss"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gate", ["flip", "always"])
def test_the_term_is_the_cross_entropy_of_the_better_answer_by_hand(make_trainer, kind, gate):
    trainer = make_trainer(kind, gamma=0.5, gate=gate, flip_margin=0.0, gradient_accumulation_steps=2)
    found = {}

    class Watched(type(trainer)):
        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            if not found and inputs[FLIPPED].any():
                gamma, self.guard.gamma = self.guard.gamma, 0.0
                plain = super()._compute_loss(model, inputs)
                self.guard.gamma = gamma
                parts = self.current_gradient_accumulation_steps if kind == "grpo" else 1
                found.update(term=(loss - plain).item() * parts, expected=by_hand(model, inputs, gate).item())
            return loss

    trainer.__class__ = Watched
    trainer.train()
    assert found["expected"] > 0
    assert found["term"] == pytest.approx(0.5 * found["expected"], rel=1e-4)


def by_hand(model, inputs, gate):
    """Mean over the batch of -log π(y* | x), from plain logits, row by row."""
    total = 0.0
    for row in range(len(inputs[FLIPPED])):
        if not (inputs[FLIPPED][row] if gate == "flip" else inputs[KNOWN][row]):
            continue
        prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
        target = inputs[TARGET][row][inputs[TARGET_MASK][row].bool()]
        logits = model(input_ids=torch.cat([prompt, target])[None]).logits[0].log_softmax(-1)
        total = total - logits[len(prompt) - 1 : -1].gather(1, target[:, None]).sum()
    return total / len(inputs[FLIPPED])


@pytest.fixture
def reads(monkeypatch):
    """The shapes of all that the guard reads, as it reads them."""
    shapes = []
    divergence = OnlineGuard._divergence

    def watched(guard, trainer, *rest):
        own = trainer._get_per_token_logps_and_entropies
        trainer._get_per_token_logps_and_entropies = lambda model, ids, *more: (
            shapes.append(ids.shape) or own(model, ids, *more)
        )
        found = divergence(guard, trainer, *rest)
        del trainer._get_per_token_logps_and_entropies
        return found

    monkeypatch.setattr(OnlineGuard, "_divergence", watched)
    return shapes


def test_a_prompt_and_target_of_several_answers_are_read_once_and_pull_for_each(make_trainer, reads):
    """With the gradients of reading them row by row; nothing is read of rows and columns that weigh nothing."""
    trainer = make_trainer("rloo", gamma=1.0)
    prompts = ["w1 w2", "w3 w4 w5", "w6", "w1 w2 w3 w4 w5"]
    answers = dict(zip(prompts, ([5, 6, 7, 1], [8, 1], [9, 5, 6], [4, 5, 6, 7, 8, 9]), strict=True))
    trainer.guard.rollouts = {key_of({"prompt": said}): Rollout(ids, 2.0, 2.0) for said, ids in answers.items()}
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": said} for said in prompts for _ in range(2)])
    assert batch[FLIPPED].all()
    batch[FLIPPED][5:] = False
    term = trainer.guard.added(trainer, trainer.model, batch, torch.zeros(()))
    expected = by_hand(trainer.model, batch, "flip")
    assert reads == [(3, 3 + 4)], "three prompts of at most three tokens, targets of at most four"
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)
    parameters = list(trainer.model.parameters())
    for left, right in zip(*(torch.autograd.grad(one, parameters) for one in (term, expected)), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_only_answers_that_flip_are_read_again(make_trainer, reads):
    """The guard's forward sees what is distinct among the flips, and there is none where nothing flips."""
    flipped = []

    class Counting(GuardedRLOOTrainer):
        def _compute_loss(self, model, inputs):
            rows = inputs[FLIPPED].nonzero().flatten().tolist()
            flipped.append(len({tuple(inputs["prompt_ids"][row].tolist()) for row in rows}))
            return super()._compute_loss(model, inputs)

    make_trainer("rloo", gamma=0.1, trainer=Counting).train()
    assert [rows for rows, _ in reads] == [count for count in flipped if count]


@pytest.mark.slow
def test_a_reward_of_none_is_never_a_flip_on_either_side(make_trainer, prompts):
    trainer = make_trainer("rloo", gamma=0.0, num_train_epochs=1, max_steps=-1, per_device_train_batch_size=8)
    seen = []

    class Watched(GuardedRLOOTrainer):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            asked = [row["prompt"] for row in inputs]
            seen.extend(zip(asked, batch[FLIPPED].tolist(), batch[KNOWN].tolist(), strict=True))
            return batch

    trainer.__class__ = Watched
    trainer.train()
    ungraded = [(flipped, known) for prompt, flipped, known in seen if prompt == prompts[6]]
    assert ungraded == [(False, False)] * 2
    assert all(known for prompt, _, known in seen if prompt != prompts[6])
    assert sum(step.get("flip/ungraded", 0) for step in trainer.state.log_history) == 2


@pytest.mark.slow
def test_the_margin_is_in_reward_units(make_trainer):
    rates = []
    for margin in (0.0, 0.3, 10.0):
        trainer = make_trainer("grpo", gamma=0.0, flip_margin=margin, max_steps=1)
        trainer.train()
        rates.append(trainer.state.log_history[0]["flip/rate"])
    assert rates[0] >= rates[1] >= rates[2] == 0


@pytest.mark.slow
def test_the_reference_is_asked_once_and_belongs_to_its_model(make_trainer, prompts, tmp_path, shifted):
    cache = tmp_path / "reference.jsonl"
    first = make_trainer("rloo", reference_cache=str(cache))
    first.train()
    second = make_trainer("rloo", reference_cache=str(cache))
    second._generate = None  # asked again it would fail before training
    second.guard.ask_reference(second)
    assert second.guard.rollouts.keys() < {key_of({"prompt": prompt}) for prompt in prompts}
    assert len(second.guard.rollouts) == 6, "two prompts in each of three steps"
    assert repr(second.guard.rollouts) == repr(first.guard.rollouts)
    other = make_trainer("rloo", reference_cache=str(cache))
    shifted(other.model)
    with pytest.raises(DataError, match="reference answers of another run: model differ"):
        other.train()
    with pytest.raises(DataError, match="sampling differ"):
        make_trainer("rloo", reference_cache=str(cache), temperature=0.5).train()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_run_resumes_to_the_same_weights(make_trainer, same, kind):
    whole = make_trainer(kind, gamma=0.5, save_strategy="steps", save_steps=7, max_steps=9)
    whole.train()
    again = make_trainer(kind, gamma=0.5, save_strategy="steps", save_steps=7, max_steps=9)
    again.train(resume_from_checkpoint=f"{again.args.output_dir}/checkpoint-7")  # in the second epoch of six steps
    assert same(weights(whole), weights(again))
    logged = [{**entry, "step_time": 0} for run in (whole, again) for entry in run.state.log_history[-2:-1]]
    assert logged[0]["flip/rate"] == logged[1]["flip/rate"]


@pytest.mark.slow
def test_the_model_of_the_kl_term_is_the_one_in_memory(build, tmp_path, arguments, same, shifted):
    """TRL would load the one on disk."""
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    shifted(model)
    config = GuardedRLOOConfig(str(tmp_path / "out"), beta=0.1, num_generations=2, **arguments)
    trainer = build(GuardedRLOOTrainer, config, model=model)
    assert same(model.state_dict(), trainer.ref_model.state_dict())


def test_streams_cannot_be_asked_beforehand(make_trainer):
    trainer = make_trainer("rloo")
    trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()
    with pytest.raises(RecipeError, match="train_dataset: is a stream"):
        trainer.train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"gamma": -1}, "gamma: -1 is not possible"),
        ({"flip_margin": "wide"}, "flip_margin: 'wide' is not possible"),
        ({"gate": "soft"}, "gate: unknown value 'soft'"),
        ({"divergence": "kl"}, "needs whole distributions"),
        ({"sync_ref_model": True, "beta": 0.1}, "sync_ref_model: True cannot go with the guard"),
    ],
)
def test_impossible_options_are_told(tmp_path, kind, option, said):
    with pytest.raises(RecipeError, match=said):
        KINDS[kind][2](str(tmp_path), bf16=False, **option)


def test_clip_range_stays_trls(tmp_path):
    config = GuardedGRPOConfig(str(tmp_path), bf16=False, epsilon=0.3, use_cpu=True, report_to="none")
    assert (config.epsilon, config.flip_margin) == (0.3, 0.1)


def test_a_rollout_is_plain_data():
    assert json.dumps(Rollout([1], 0.5, 0.5).ids) == "[1]"
