"""Guarded PPO: its step by hand, from what was sampled to the weights; and what is kept between steps and runs."""

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from flipguard.errors import DataError, ModelError, RecipeError
from flipguard.integrations.trl import GuardedPPOConfig, GuardedPPOTrainer
from flipguard.integrations.trl.critic import opened, with_score
from flipguard.integrations.trl.online import FLIPPED, KNOWN, TARGET, TARGET_MASK
from flipguard.integrations.trl.ppo import ADVANTAGES, MASK, RETURNS


@pytest.fixture
def make_trainer(tmp_path, arguments, build):
    def make(trainer=GuardedPPOTrainer, out="out", peft_config=None, **config):
        settings = {**arguments, "max_completion_length": 8, "max_steps": 3, "seed": 5, "critic_learning_rate": 0.01}
        made = GuardedPPOConfig(str(tmp_path / out), **settings | {"per_device_train_batch_size": 6} | config)
        return build(trainer, made, peft_config=peft_config)

    return make


def weights(trainer):
    both = {"policy": trainer.model, "critic": trainer.critic}
    return {f"{of}.{name}": one.clone() for of, model in both.items() for name, one in model.state_dict().items()}


class Recorded(GuardedPPOTrainer):
    """Keeps the batches of its losses."""

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        vars(self).setdefault("batches", []).append((inputs, loss.detach()))
        return loss


def by_hand(trainer, batch, rewards):
    """Eqs. of PPO, an answer and a token at a time, with the model's own logits and padding on one side only."""
    args, actor, critics, tokens = trainer.args, [], [], 0
    reference = trainer.ref_model
    for row, reward in enumerate(rewards):
        if reward is None:  # nothing is learned of it
            continue
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        ids = torch.cat([prompt, answer])[None]
        at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        logits = {name: model(ids).logits[0] / args.temperature for name, model in
                  {"now": trainer.model, "ref": reference}.items()}  # fmt: skip
        logps = {name: torch.stack([one[place].log_softmax(-1)[ids[0, place + 1]] for place in at])
                 for name, one in logits.items()}  # fmt: skip
        trunk = trainer.critic.classifier.base_model(ids).last_hidden_state[0]
        values = torch.stack([trainer.critic.classifier.score(trunk[place])[0] for place in at])
        old, old_values = logps["now"].detach(), values.detach()
        gains = [-args.beta * (old[t] - logps["ref"][t]).item() for t in range(len(answer))]
        gains[-1] += max(-5.0, min(5.0, reward))
        for t in range(len(answer)):
            advantage, weight = 0.0, 1.0
            for later in range(t, len(answer)):
                after = old_values[later + 1].item() if later + 1 < len(answer) else 0.0
                advantage += weight * (gains[later] + args.discount * after - old_values[later].item())
                weight *= args.discount * args.gae_lambda
            ratio = (logps["now"][t] - old[t]).exp()
            actor.append(-advantage * ratio)
            critics.append(0.5 * (values[t] - (advantage + old_values[t].item())) ** 2)
            tokens += 1
    return sum(actor) / tokens + sum(critics) / tokens


def test_a_step_has_the_loss_and_gradients_of_the_equations(make_trainer, prompts, share_of_even_words, shifted):
    trainer = make_trainer(gate="off", discount=0.9, gae_lambda=0.8, beta=0.2)
    shifted(trainer.ref_model)
    shifted(trainer.critic)
    trainer.guard.ask_reference(trainer)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts[3:9]])
    trainer.current_gradient_accumulation_steps = 1
    texts = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    rewards = share_of_even_words(texts, prompts=prompts[3:9])
    assert None in rewards
    parameters = [*trainer.model.parameters(), *trainer.critic.parameters()]
    ours, theirs = trainer._compute_loss(trainer.model, batch), by_hand(trainer, batch, rewards)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    told = trainer._metrics["train"]
    assert told["flip/ungraded"] == [rewards.count(None)]
    returns, missed = (batch[name][batch[MASK]] for name in (RETURNS, ADVANTAGES))
    expected = 1 - (missed.var(correction=0) / returns.var(correction=0)).item()
    assert told["ppo/value_explained_variance"] == pytest.approx([expected], rel=1e-4)
    for left, right in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


def test_the_guard_adds_the_cross_entropy_of_the_better_answer_where_one_flips(make_trainer, prompts):
    trainer = make_trainer(gamma=0.5, flip_margin=0.0)
    trainer.guard.ask_reference(trainer)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts[3:9]])
    assert 0 < batch[FLIPPED].sum() < len(batch[FLIPPED])
    guarded = trainer._compute_loss(trainer.model, batch)
    trainer.guard.gamma = 0.0
    plain, expected = trainer._compute_loss(trainer.model, batch), 0.0
    for row in (batch[FLIPPED] & batch[KNOWN]).nonzero().flatten():
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        target = batch[TARGET][row][batch[TARGET_MASK][row].bool()]
        logps = trainer.model(torch.cat([prompt, target])[None]).logits[0].log_softmax(-1)
        expected -= 0.5 * logps[len(prompt) - 1 : -1].gather(1, target[:, None]).sum() / len(batch[FLIPPED])
    assert (guarded - plain).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.slow
def test_zero_gamma_is_the_unguarded_trajectory_bit_for_bit_and_still_counts(make_trainer, same):
    def run(gamma, *, silent=False):
        trainer = make_trainer(gamma=gamma, num_iterations=2, max_steps=4)
        if silent:  # no guard at all
            for name, gives in {
                "ask_reference": lambda _: None,
                "flagged": lambda _, __, batch: batch,
                "added": lambda _, __, ___, loss: loss,
            }.items():
                setattr(trainer.guard, name, gives)
        trainer.train()
        return trainer, [step for step in trainer.state.log_history if "loss" in step]

    (plain, said), (counted, more), (guarded, _) = run(0.5, silent=True), run(0.0), run(0.5)
    assert same(weights(plain), weights(counted))
    assert not same(weights(plain), weights(guarded))
    assert max(step["flip/rate"] for step in more if "flip/rate" in step) > 0
    for left, right in zip(said, more, strict=True):
        assert {**left, "step_time": 0} == {name: right[name] for name in left} | {"step_time": 0}


@pytest.mark.slow
def test_accumulation_does_not_change_the_step_and_epochs_learn_from_the_same_answers(make_trainer):
    whole = make_trainer(max_steps=1, per_device_train_batch_size=8, gate="off")
    whole.train()
    halves = make_trainer(max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=2, gate="off")
    halves.train()
    left, right = weights(whole), weights(halves)
    assert max((left[name] - right[name]).abs().max() for name in left) < 1e-5
    twice = make_trainer(trainer=Recorded, num_iterations=2, max_steps=2)
    twice.train()
    (first, _), (second, _) = twice.batches
    assert torch.equal(first["completion_ids"].sort(0).values, second["completion_ids"].sort(0).values)
    assert twice.state.log_history[0]["ppo/clip_fraction"] == 0.0


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_weights_of_an_unbroken_one(make_trainer, same, tmp_path):
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "w{at} w{at + 1} w2"}}\n' for at in range(9)))
    further = {
        "ema_decay": 0.5,
        "pretraining": str(tmp_path / "texts.jsonl"),
        "reference_cache": str(tmp_path / "cache"),
    }
    whole = make_trainer(max_steps=4, save_steps=2, save_strategy="steps", **further)
    whole.train()
    resumed = make_trainer(max_steps=4, save_strategy="no", out="other", **further)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert same(weights(whole), weights(resumed))
    assert same(whole.average.weights, resumed.average.weights)
    names = ("loss", "reward", "ppo/value_loss", "ppo/ptx_loss", "flip/rate")
    for left, right in zip(whole.state.log_history[2:], resumed.state.log_history[2:], strict=True):
        assert [left.get(name) for name in names] == [right.get(name) for name in names]
    whole.save_model(str(tmp_path / "done"))
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "done")
    assert same({f"policy.{name}": one for name, one in policy.state_dict().items()}, weights(whole))
    average = AutoModelForCausalLM.from_pretrained(tmp_path / "done" / "ema").state_dict()
    assert all(torch.equal(average[name], one) for name, one in whole.average.weights.items())
    assert not same(average, policy.state_dict())
    critic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "done" / "critic")
    assert torch.equal(critic.score.weight, whole.critic.classifier.score.weight)


@pytest.mark.slow
def test_it_learns_what_is_rewarded_and_the_critic_what_to_expect(make_trainer):
    trainer = make_trainer(
        max_steps=40, per_device_train_batch_size=12, beta=0.01, learning_rate=5e-3, num_iterations=2, gate="off",
        normalize_advantages=True,
    )  # fmt: skip
    trainer.train()
    steps = [step for step in trainer.state.log_history if "reward" in step]
    first, last = (sum(step["reward"] for step in part) / len(part) for part in (steps[:6], steps[-6:]))
    assert last > first + 0.15
    expected, returned = (sum(step[f"ppo/{name}"] for step in steps[-6:]) for name in ("value", "return"))
    assert expected == pytest.approx(returned, rel=0.5)


@pytest.mark.slow
def test_an_adapter_is_trained_and_saved_and_its_critic_stays_whole(make_trainer, tmp_path):
    from peft import LoraConfig

    trainer = make_trainer(peft_config=LoraConfig(r=2, target_modules=["q_proj"]), max_steps=1)
    before = weights(trainer)
    trainer.train()
    moved = {name for name, one in weights(trainer).items() if not torch.equal(one, before[name])}
    assert any("lora" in name for name in moved)
    assert all("lora" in name for name in moved if name.startswith("policy."))
    assert any(name.startswith("critic.classifier.score") for name in moved)
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_texts_add_their_mean_negative_log_likelihood(make_trainer, prompts, tmp_path):
    said = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9"]
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in said))
    trainer = make_trainer(pretraining=str(tmp_path / "texts.jsonl"), ptx_coef=2.0, gate="off")
    trainer.guard.ask_reference(trainer)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts[:3]])
    mixed, trainer.texts = trainer._compute_loss(trainer.model, batch), []
    plain, nats, tokens = trainer._compute_loss(trainer.model, batch), 0.0, 0
    for text in said:
        ids = torch.tensor([trainer.processing_class(text)["input_ids"]])
        nats -= trainer.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
        tokens += ids.shape[1] - 1
    assert (mixed - plain).item() == pytest.approx(2 * nats.item() / tokens, rel=1e-5)
    (tmp_path / "texts.jsonl").write_text('{"text": "w1 w2"}\n{"txt": "w1"}\n')
    with pytest.raises(DataError, match=r"texts\.jsonl:2: no 'text' of at least two tokens"):
        make_trainer(pretraining=str(tmp_path / "texts.jsonl"))


def test_a_critic_can_start_from_a_reward_model(make_trainer, make_model, tmp_path):
    torch.manual_seed(1)
    classifier = with_score(make_model())
    classifier.save_pretrained(tmp_path / "reward")
    trainer = make_trainer(critic=str(tmp_path / "reward"))
    assert torch.equal(trainer.critic.classifier.score.weight, classifier.score.weight)
    assert not make_trainer().critic.classifier.score.weight.any()
    classifier.resize_token_embeddings(7)
    classifier.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"other: reads 7 tokens and the policy \d+; a critic must read the policy's"):
        make_trainer(critic=str(tmp_path / "other"))
    with pytest.raises(ModelError, match="nowhere: cannot be loaded"):
        make_trainer(critic=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"num_generations": 4}, "num_generations: PPO learns from one answer to a prompt"),
        ({"num_generations_eval": 2}, "num_generations_eval: PPO learns from one answer"),
        ({"epsilon_high": 0.3}, "epsilon_high: has no effect on PPO; remove it"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef: has no effect on PPO"),
        ({"discount": 1.5}, r"discount: 1\.5 is not possible: it must be a number between 0 and 1"),
        ({"gae_lambda": float("nan")}, "gae_lambda: nan is not possible"),
        ({"value_clip": 0}, "value_clip: 0 is not possible: it must be a number above 0"),
        ({"critic_learning_rate": True}, "critic_learning_rate: true is not possible|critic_learning_rate: True"),
        ({"per_device_train_batch_size": 1}, "PPO asks for at least 2 answers at once"),
        ({"ema_decay": 2.0}, "ema_decay: 2.0 is not possible"),
        ({"ptx_coef": -1}, "ptx_coef: -1 is not possible: it must be a number of at least 0"),
        ({"gamma": -1}, "gamma: -1 is not possible"),
        ({"critic": torch.nn.Linear(1, 1)}, "critic: Linear is not possible: it must be a folder or hub id"),
    ],
)
def test_options_that_are_not_possible_are_one_line(make_trainer, option, says):
    with pytest.raises(RecipeError, match=says):
        make_trainer(**option)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "w1 w2", "images": ["w1.png"]},
        {"prompt": "w1 w2", "image": "w1.png"},
        {"prompt": [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "w1"}]}]},
    ],
)
def test_prompts_with_images_are_refused(make_trainer, row):
    trainer = make_trainer()
    trainer.train_dataset = datasets.Dataset.from_list([row] * 12)
    with pytest.raises(RecipeError, match="train_dataset: has prompts with images, and the guard reads text only"):
        trainer.train()


def test_an_adapted_model_needs_a_critic_of_its_own(make_model):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="model: has an adapter already"):
        opened(None, adapted)


def test_the_critic_learns_at_a_rate_of_its_own(make_trainer):
    trainer = make_trainer(critic_learning_rate=0.3)
    rates = {len(group["params"]): group["lr"] for group in trainer.create_optimizer().param_groups}
    assert rates[len(list(trainer.critic.parameters()))] == 0.3
    assert sorted(set(rates.values())) == [0.01, 0.3]
