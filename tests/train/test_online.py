"""Online algorithms from recipe to model folder, as a user runs them."""

import importlib
import json
import subprocess
import sys
import time

import datasets
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import RLOOConfig, RLOOTrainer

from flipguard.errors import FlipGuardError, RecipeError
from flipguard.integrations.trl import GuardedRLOOConfig, GuardedRLOOTrainer, rollouts
from flipguard.train.data_report import check_data
from flipguard.train.distance import Distance
from flipguard.train.run import train

pytestmark = pytest.mark.slow

SCORER = """
import json

def even(prompts, completions, **columns):
    said = [[word for message in answer for word in message["content"].split()] for answer in completions]
    return [sum(int(word[1:]) % 2 == 0 for word in words if word[1:].isdigit()) / 8 for words in said]

def raises(prompts, completions, **columns):
    return 1 / 0

def words(prompts, completions, **columns):
    return ["good"] * len(prompts)

def few(prompts, completions, **columns):
    return [1.0]

def nothing(prompts, completions, **columns):
    pass

def none(prompts, completions, **columns):
    return [None] * len(prompts)

def keeps(prompts, completions, **columns):
    with open("seen.jsonl", "a") as file:
        for at, prompt in enumerate(prompts):
            file.write(json.dumps({"prompt": prompt} | {key: values[at] for key, values in columns.items()}) + "\\n")
    return [float(len(answer)) for answer in completions]
"""
TRAINER = {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "max_steps": 6, "use_cpu": True}
BY_HAND = {  # the same as a config of TRL
    **TRAINER, "num_generations": 2, "max_completion_length": 8, "bf16": False, "gradient_checkpointing": False,
    "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip
LORA = {"r": 2, "target_modules": "all-linear"}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def online(make_recipe, tmp_path, monkeypatch):
    """Writes a recipe of an online algorithm, prompts and a reward; a keyword replaces a section."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "even_words", raising=False)  # of another test, in another folder
    (tmp_path / "even_words.py").write_text(SCORER)
    rows = [{"id": n, "prompt": [{"role": "user", "content": f"w{n} w{n + 1}"}], "target": n} for n in range(12)]
    write_rows(tmp_path / "prompts.jsonl", rows)

    def write(name="rloo", **sections):
        said = {
            "algorithm": "rloo",
            "data": {"train": "prompts.jsonl"},
            "reward": "even_words:even",
            "rollout": {"max_new_tokens": 8, "samples": 2},
            "constraint": {"gamma": 0.5, "epsilon": 0.0},
            "trainer": TRAINER,
        }
        return make_recipe(name, **said | sections)

    return write


@pytest.fixture
def by_hand(model_folder, tokenizer, tmp_path):
    """The weights that a trainer and config of TRL's kind end in, on the prompts and the reward of `online`."""

    def train(trainer, config, **options):
        prompts = [json.loads(line)["prompt"] for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
        made = trainer(
            model=AutoModelForCausalLM.from_pretrained(model_folder),
            reward_funcs=importlib.import_module("even_words").even,
            args=config(str(tmp_path / "theirs"), **BY_HAND | options),
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
        )
        made.train()
        return dict(made.model.state_dict())

    return train


@pytest.fixture
def refused(online, tmp_path):
    """Asserts that a recipe is refused by one line that holds `says`, and leaves nothing behind."""

    def check(says, **sections):
        with pytest.raises(FlipGuardError) as raised:
            train(online(**sections))
        assert says in str(raised.value)
        assert "\n" not in str(raised.value)
        assert not list((tmp_path / "rloo").glob("*"))

    return check


def test_ppo_goes_from_recipe_to_a_plain_model_folder_with_its_critic_beside(online):
    one = {"rollout": {"max_new_tokens": 8}, "loss": {"discount": 0.9}, "algorithm": "ppo"}
    first = train(online("first", **one))
    assert {"flip/rate", "kl/ref", "ppo/value_loss", "flip/reward_ref"} <= history(first.path)[0].keys()
    assert AutoModelForCausalLM.from_pretrained(first.path)
    greedy = {**one, "rollout": {"max_new_tokens": 8, "temperature": 0}, "trainer": TRAINER | {"learning_rate": 0.0}}
    still = history(train(online("still", **greedy)).path)
    assert {(step["flip/reward_policy"], step["flip/rate"]) for step in still} == {
        (step["flip/reward_ref"], 0.0) for step in still
    }, "a model that stands still says greedily what it said"
    critic = str(first.path / "critic")
    second = train(online("second", **one, critic=critic))
    assert not train(online("second", **one, critic=critic), overwrite=True).already_done
    assert json.loads((second.path / "flipguard.json").read_text())["inputs"]["critic"]
    with pytest.raises(FlipGuardError, match=r"third\.yaml: discount: 3\.0 is not possible"):
        train(online("third", **one | {"loss": {"discount": 3}}))
    with pytest.raises(FlipGuardError, match=r"critic: is said by the section 'critic'|loss\.critic"):
        train(online("third", **one | {"loss": {"critic": 1}}))


def history(folder):
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in entries if "loss" in entry]


def weights(folder, name="model.safetensors"):
    return load_file(folder / name)


def same(left, right):
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_an_online_recipe_leaves_a_model_a_card_and_the_metrics_of_every_step(online, algorithm):
    trained = train(online(algorithm=algorithm, loss={"beta": 0.1}))
    steps = history(trained.path)
    assert len(steps) == 6
    for step in steps:
        assert {"reward", "flip/rate", "flip/margin", "flip/reward_policy", "flip/reward_ref", "kl/ref"} <= step.keys()
        assert step["flip/gamma"] == 0.5
    assert max(step["flip/constraint_loss"] for step in steps) > 0
    card = (trained.path / "README.md").read_text()
    assert "max_new_tokens: 8" in card
    assert "12 prompts" in card


def test_with_gamma_zero_the_recipe_trains_to_the_weights_of_trl(online, by_hand):
    sections = {"loss": {"beta": 0.1, "epsilon": 0.3}, "constraint": {"gamma": 0}}
    steps = {"gradient_accumulation_steps": 2, "max_steps": 3}
    ours = train(online(trainer=TRAINER | steps, **sections))
    assert same(weights(ours.path), by_hand(RLOOTrainer, RLOOConfig, beta=0.1, epsilon=0.3, **steps))
    assert max(step["flip/rate"] for step in history(ours.path)) > 0


def test_the_guard_of_the_recipe_is_that_of_the_drop_in_trainer(online, by_hand):
    """Which is held against Eq. 12 by hand in tests/integrations."""
    ours = train(online(constraint={"gamma": 0.5, "epsilon": 0.05, "reduction": "mean"}))
    guard = {"gamma": 0.5, "flip_margin": 0.05, "reduction": "mean"}
    assert same(weights(ours.path), by_hand(GuardedRLOOTrainer, GuardedRLOOConfig, **guard))


def test_a_killed_run_resumes_to_the_same_weights_and_metrics(online, tmp_path):
    constraint = {"gamma": 0.1, "epsilon": 0, "target_flip_rate": 0.1, "adaptive_rate": 0.5}
    trainer = TRAINER | {"max_steps": 16, "save_steps": 2}
    sections = {"trainer": trainer, "constraint": constraint, "algorithm": "grpo"}
    whole = train(online("whole", **sections))
    recipe = online("broken", **sections)
    command = [sys.executable, "-m", "flipguard", "train", str(recipe)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "broken").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    resumed = train(recipe, resume=True)
    assert same(weights(whole.path), weights(resumed.path))
    steps = [[{**step, "step_time": 0} for step in history(run.path)] for run in (whole, resumed)]
    assert steps[0] == steps[1]
    gammas = [step["flip/gamma"] for step in steps[0]]
    for before, step, after in zip(gammas, steps[0], gammas[1:], strict=False):
        assert after == pytest.approx(max(0.0, before + 0.5 * (step["flip/rate"] - 0.1)))
    assert len(set(gammas)) > 3


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("raises", "even_words:raises: failed on data.train: "),
        ("words", "even_words:words: returned 'good' (str) for id 0 in data.train. Return a float"),
        ("few", "even_words:few: returned 1 values for the 4 completions of data.train"),
        ("nothing", "even_words:nothing: returned a NoneType for data.train, not a list."),
        ("none", "even_words:none: graded not one answer of the reference."),
        ("absent", "even_words.py has no 'absent'."),
    ],
)
def test_a_reward_that_breaks_its_promise_is_one_line_and_leaves_nothing_behind(refused, reward, says):
    refused(says, reward=f"even_words:{reward}")


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"trainer": TRAINER | {"per_device_train_batch_size": 3}}, "must be divisible by num_generations"),
        ({"trainer": TRAINER | {"per_device_train_batch_size": 32}}, "12 prompts are fewer than the 16 that are asked"),
        ({"trainer": TRAINER | {"temperature": 1}}, "trainer.temperature: is said by the section 'rollout'"),
        ({"loss": {"flip_margin": 1}}, "loss.flip_margin: is said by the section 'constraint'"),
        ({"loss": {"learning_rate": 1}}, "loss.learning_rate: belongs to the section 'trainer'."),
        ({"loss": {"betta": 1}}, "loss: unknown key 'betta'. Did you mean 'beta'?"),
        ({"loss": {"beta": "high"}}, "loss.beta: 'high' is not possible"),
        ({"loss": {"beta": 1}, "trainer": TRAINER | {"beta": 1}}, "loss.beta: is said in the section 'trainer', too"),
        ({"loss": {"num_iterations": 3}, "trainer": TRAINER | {"save_steps": 4}}, "trainer.save_steps: 4 falls amid"),
        ({"rollout": {"vllm": "server"}}, "rollout.vllm: needs the package 'vllm', which is not installed."),
        ({"rollout": {"max_new_tokens": 62}}, "prompts.jsonl:1: the prompt (4 tokens) and rollout.max_new_tokens (62)"),
        (
            {"data": {"train": "prompts.jsonl", "max_prompt_tokens": 3}},
            "nothing to train on (0 rows; left out: 12 with",
        ),
        ({"reward": "./nowhere"}, "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_trained_online_is_one_line_and_leaves_nothing_behind(refused, sections, says):
    refused(says, **sections)


def test_prompts_come_from_pairs_too_and_over_long_ones_are_counted(online, tmp_path, capfd):
    """The reward is given the other keys of each row, whether all rows have them or not."""
    pair = {"chosen": " w2", "rejected": " "}
    rows = [{"prompt": f"w{n} w1", **pair, "target": [n]} for n in range(6)]
    rows += [{"prompt": "w1 " * 20, **pair}, {"prompt": "w9 w1", **pair}]
    write_rows(tmp_path / "pairs.jsonl", rows)
    data = {"train": "pairs.jsonl", "eval": "prompts.jsonl", "max_prompt_tokens": 8, "chat": True}
    trained = train(online(data=data, reward="even_words:keeps"))
    assert "pairs.jsonl: 7 prompts; left out: 1 with prompts over 8 tokens" in capfd.readouterr().err
    assert {"eval_flip/rate", "eval_flip/reward_ref"} <= trained.metrics.keys()
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    pairs = {row["prompt"][0]["content"]: row["target"] for row in seen if "chosen" in row}
    assert pairs == {f"w{n} w1": [n] for n in range(6)} | {"w9 w1": None}
    assert {row["id"] for row in seen if "chosen" not in row} == set(range(12))


def test_the_soft_gate_and_an_adapter_are_taken_too(online):
    """a + b · flip with b = 0 is distillation at a times the strength."""
    soft = {"gate": "soft", "weights": [0.4, 0.0], "gamma": 0.5, "epsilon": 0, "schedule": "linear"}
    soft = train(online("soft", constraint=soft, peft=LORA))
    steps = history(soft.path)
    assert [step["flip/gamma"] for step in steps] == pytest.approx([0.5 * (6 - n) / 6 for n in range(6)])
    assert all("kl/ref" in step for step in steps), "the adapter switched off is π_0"
    distilled = {"gate": "always", "gamma": 0.2, "epsilon": 0, "schedule": "linear"}
    always = history(train(online("always", constraint=distilled, peft=LORA)).path)
    pulls = [[step["flip/constraint_loss"] for step in run] for run in (steps, always)]
    assert pulls[0] == pytest.approx(pulls[1], rel=1e-4)
    assert (soft.path / "adapter_model.safetensors").exists()


def test_reference_answers_are_kept_for_later_runs_and_damage_is_noticed(online, tmp_path, monkeypatch):
    first = train(online("first"))
    (kept,) = (tmp_path / "cache" / "reference_rollouts").iterdir()
    said = kept.read_bytes()
    asked = []
    ask = rollouts._ask  # what a second run must not need
    monkeypatch.setattr(rollouts, "_ask", lambda *given: asked.append(1) or ask(*given))
    assert same(weights(train(online("second")).path), weights(first.path))
    assert not asked
    kept.write_bytes(said.replace(b'"reward":0.5', b'"reward":0.6', 1))
    assert same(weights(train(online("third")).path), weights(first.path))
    assert (len(asked), kept.read_bytes()) == (1, said)
    (tmp_path / "prompts.jsonl").write_text(
        (tmp_path / "prompts.jsonl").read_text().replace('"target": 3', '"target": 4')
    )
    train(online("fourth"))
    assert len(asked) == 2, "the reward may read another target"
    train(online("fifth", speed={"reference_cache": "off"}))
    assert len(asked) == 3


def test_a_reward_model_trained_here_rewards_here(online, make_recipe):
    rewarding = make_recipe("reward", algorithm="reward", trainer=TRAINER)
    reward = str(train(rewarding).path)
    trained = train(online(reward={"path": reward, "batch_size": 3, "form": "chat"}))
    earned = {step["flip/reward_policy"] for step in history(trained.path)}
    assert len(earned) > 1
    assert json.loads((trained.path / "flipguard.json").read_text())["inputs"]["reward"]
    train(rewarding, {"trainer.max_steps": "2"}, overwrite=True)
    with pytest.raises(RecipeError, match="was trained with another reward than there is now"):
        train(online(reward={"path": reward, "batch_size": 3, "form": "chat"}), resume=True)


def test_another_reward_is_another_run(online, tmp_path):
    recipe = online()
    train(recipe)
    assert train(recipe, resume=True).already_done
    with pytest.raises(RecipeError, match=r"was begun with rollout\.max_new_tokens = 8, the recipe now says 9"):
        train(recipe, {"rollout.max_new_tokens": "9"}, resume=True)
    with (tmp_path / "even_words.py").open("a") as file:
        file.write("\n# edited\n")
    with pytest.raises(RecipeError, match="was trained with another reward than there is now"):
        train(recipe, resume=True)


@pytest.mark.parametrize("reused", [{}, {"num_iterations": 2, "save_steps": 4}], ids=["once", "twice"])
def test_of_a_short_run_only_the_prompts_it_will_see_are_asked_beforehand(online, tmp_path, reused):
    trainer = TRAINER | {"max_steps": 2, "gradient_accumulation_steps": 2} | reused
    rollout = {"max_new_tokens": 8, "samples": 2, "reference_samples": 3}
    train(online(reward="even_words:keeps", rollout=rollout, trainer=trainer))
    seen = [json.loads(line)["id"] for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    count = 4 if reused else 8
    asked, trained = seen[: 3 * count], seen[3 * count :]
    assert set(asked) == set(trained)
    assert len(set(asked)) == count
    assert len(trained) == 2 * count


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_whole_distributions_are_held_against_the_frozen_reference(online, monkeypatch, peft):
    found = []

    def watched(self, model, ids, attention, mask):
        by_token = distance(self, model, ids, attention, mask)
        with torch.no_grad():
            told = [one(input_ids=ids, attention_mask=attention).logits / 0.7 for one in (self.reference, model)]
        ref, policy = (logits[:, -mask.shape[1] - 1 : -1].log_softmax(-1) for logits in told)
        found.append((by_token.detach(), (ref.exp() * (ref - policy)).sum(-1) * mask))
        return by_token

    distance = Distance.__call__
    monkeypatch.setattr(Distance, "__call__", watched)
    rollout = {"max_new_tokens": 8, "samples": 2, "temperature": 0.7}
    constraint = {"gate": "always", "divergence": "kl", "gamma": 0.5}
    steps = history(train(online(constraint=constraint, rollout=rollout, peft=peft)).path)
    assert all(torch.allclose(ours, by_hand, atol=1e-5) for ours, by_hand in found)
    assert steps[0]["flip/constraint_loss"] == pytest.approx(0, abs=1e-5), "π is π_0"
    assert max(step["flip/constraint_loss"] for step in steps) > 1e-3


def test_answers_that_are_masked_because_they_were_cut_are_no_targets(online):
    """Here all are; the guard still pulls towards what π_0 said better."""
    cut = {"max_new_tokens": 2, "samples": 2}
    masked = {"mask_truncated_completions": True}
    steps = history(train(online(rollout=cut, loss=masked, constraint={"gate": "always", "gamma": 0.5})).path)
    assert all(step["completions/clipped_ratio"] > 0.5 for step in steps)
    assert max(step["flip/constraint_loss"] for step in steps) > 0


def test_check_data_speaks_of_prompts_and_of_the_room_for_answers(online, tmp_path):
    recipe = online(rollout={"max_new_tokens": 62})
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": said} for said in ("w1 w2 w3", " ", 3, "w1")])
    report = check_data(recipe)
    (part,) = report.sources
    assert (part.format, part.trained_on, part.beyond_context) == ("prompts", 2, [0])
    assert {finding.fault: finding.rows for finding in part.findings} == {"malformed": [2], "empty_prompt": [1]}
    assert not report.trainable


def test_an_online_run_that_diverges_is_one_line(online):
    with pytest.raises(RecipeError, match="training diverged"):
        train(online(trainer=TRAINER | {"learning_rate": 1e30}))
