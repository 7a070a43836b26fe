"""From recipe to model folder, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from flipguard.errors import DataError, FlipGuardError, ModelError, RecipeError
from flipguard.train.run import train

pytestmark = pytest.mark.slow

METRICS = {
    "loss", "flip/rate", "flip/margin", "flip/constraint_loss", "flip/gamma", "kl/ref", "rewards/chosen",
    "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
}  # fmt: skip
LORA = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}


def history(folder):
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in entries if "loss" in entry]


def weights(folder, name="model.safetensors"):
    return load_file(folder / name)


def same(left, right):
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


def test_dpo_leaves_a_model_folder_a_card_and_every_metric_of_every_step(make_recipe):
    trained = train(make_recipe())
    assert AutoModelForCausalLM.from_pretrained(trained.path).config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(trained.path).chat_template
    assert "gamma: 0.01" in (trained.path / "README.md").read_text()
    steps = history(trained.path)
    assert [entry["step"] for entry in steps] == list(range(1, 25))
    assert all(entry.keys() >= METRICS for entry in steps)
    assert steps[0]["flip/rate"] == 0.0
    assert max(entry["flip/rate"] for entry in steps) > 0
    assert json.loads((trained.path / "flipguard.json").read_text())["finished"]


@pytest.mark.parametrize("algorithm", ["ipo", "hinge", "dpop", "rpo"])
def test_every_pairwise_algorithm_trains(make_recipe, algorithm):
    trained = train(make_recipe(algorithm=algorithm, constraint={"gate": "off"}))
    steps = history(trained.path)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["rewards/margins"] > 0


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "js", "wasserstein"])
def test_every_divergence_guards_against_the_reference_itself(make_recipe, divergence):
    guarded = train(make_recipe(divergence, constraint={"gate": "always", "divergence": divergence, "gamma": 5}))
    plain = train(make_recipe("plain", constraint={"gate": "off"}))
    first = history(guarded.path)[0]
    assert first["flip/constraint_loss"] == pytest.approx(0, abs=1e-5)
    assert abs(guarded.metrics["rewards/margins"]) < abs(plain.metrics["rewards/margins"])


def test_sft_learns_the_chosen_answers(make_recipe):
    recipe = make_recipe("sft", algorithm="sft")
    trained = train(recipe)
    losses = [entry["loss"] for entry in history(trained.path)]
    assert losses[-1] < losses[0]


def test_lora_saves_an_adapter_that_loads(make_recipe):
    trained = train(make_recipe(peft=LORA))
    assert (trained.path / "adapter_model.safetensors").exists()
    assert AutoModelForCausalLM.from_pretrained(trained.path)
    assert history(trained.path)[0]["flip/rate"] == 0.0


def test_an_evaluation_set_is_measured_with_the_same_metrics(make_recipe, make_pairs, tmp_path):
    make_pairs(tmp_path / "held_out.jsonl", count=20, seed=1)
    trained = train(make_recipe(data={"train": "pairs.jsonl", "eval": "held_out.jsonl"}))
    assert {f"eval_{name}" for name in METRICS} <= trained.metrics.keys()


def test_a_separate_reference_is_what_flips_are_measured_against(make_recipe, model_folder):
    other = train(make_recipe("other", trainer={"learning_rate": 0.1, "max_steps": 3, "use_cpu": True}))
    trained = train(make_recipe("against", reference=str(other.path), model=str(model_folder)))
    assert history(trained.path)[0]["rewards/margins"] != 0.0


def test_accumulation_does_not_change_the_loss(make_recipe):
    """Two halves accumulated are one whole batch: same weights up to rounding."""
    base = {"learning_rate": 1e-2, "max_steps": 3, "use_cpu": True}
    whole = train(make_recipe("whole", trainer=base | {"per_device_train_batch_size": 8}))
    halves = base | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    half = train(make_recipe("half", trainer=halves))
    left, right = weights(whole.path), weights(half.path)
    assert all(left[name].allclose(right[name], atol=1e-4) for name in left)


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_a_killed_run_resumes_to_the_same_weights(make_recipe, tmp_path, peft):
    trainer = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "max_steps": 40,
        "save_steps": 3,
        "use_cpu": True,
    }
    name = "model.safetensors" if peft is None else "adapter_model.safetensors"
    unbroken = train(make_recipe("unbroken", trainer=trainer, peft=peft))
    recipe = make_recipe("broken", trainer=trainer, peft=peft)
    command = [sys.executable, "-m", "flipguard.cli", "train", str(recipe)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "broken").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "broken" / name).exists()
    with pytest.raises(RecipeError, match="--resume continues it"):
        train(recipe)
    resumed = train(recipe, resume=True)
    assert same(weights(unbroken.path, name), weights(resumed.path, name))
    told = [{key: entry[key] for key in METRICS} for entry in history(resumed.path)]
    assert told == [{key: entry[key] for key in METRICS} for entry in history(unbroken.path)]
    assert train(recipe, resume=True).already_done


def test_a_torn_checkpoint_is_passed_over(make_recipe):
    recipe = make_recipe(trainer={"max_steps": 4, "save_steps": 2, "use_cpu": True, "learning_rate": 1e-2})
    finished = train(recipe)
    before = weights(finished.path)
    (finished.path / "checkpoint-4" / "trainer_state.json").unlink()
    record = json.loads((finished.path / "flipguard.json").read_text())
    (finished.path / "flipguard.json").write_text(json.dumps(record | {"finished": False}))
    assert same(weights(train(recipe, resume=True).path), before)


def test_resuming_another_recipe_is_refused_by_the_key_that_differs(make_recipe):
    recipe = make_recipe()
    train(recipe)
    with pytest.raises(RecipeError, match=r"was begun with constraint.gamma = 0.01, the recipe now says 0.5"):
        train(recipe, {"constraint.gamma": "0.5"}, resume=True)
    assert not train(recipe, {"constraint.gamma": "0.5"}, overwrite=True).already_done


@pytest.mark.parametrize(
    ("sections", "error", "says"),
    [
        ({"model": "./missing"}, ModelError, "no such model folder"),
        ({"model": "."}, ModelError, "holds no config.json"),
        ({"data": {"train": "none.jsonl"}}, DataError, "no such file"),
        ({"trainer": {"lerning_rate": 1}}, RecipeError, "Did you mean 'learning_rate'"),
        ({"trainer": {"learning_rate": "fast"}}, RecipeError, "trainer.learning_rate: 'fast' is not possible"),
        ({"trainer": {"eval_strategy": "epoch", "use_cpu": True}}, RecipeError, "eval"),
        ({"trainer": {"remove_unused_columns": True}}, RecipeError, "is set by flipguard"),
        ({"peft": {"rank": 3}}, RecipeError, "peft: unknown key 'rank'"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing_behind(make_recipe, tmp_path, sections, error, says):
    with pytest.raises(error) as raised:
        train(make_recipe(**sections))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, FlipGuardError)
    assert not (tmp_path / "dpo").exists()
