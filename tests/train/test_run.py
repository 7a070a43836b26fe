"""From recipe to model folder, as a user runs it."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from flipguard.errors import DataError, FlipGuardError, ModelError, RecipeError
from flipguard.locks import locked
from flipguard.train.checkpoints import last_whole
from flipguard.train.reference import cache_folder
from flipguard.train.run import train

pytestmark = pytest.mark.slow

METRICS = {
    "loss", "flip/rate", "flip/margin", "flip/constraint_loss", "flip/gamma", "kl/ref", "rewards/chosen",
    "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
}  # fmt: skip
UNPAIRED = METRICS - {"rewards/accuracies", "rewards/margins"}
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


@pytest.mark.parametrize("algorithm", ["ipo", "dpop", "apo_zero", "sppo", "simpo", "orpo", "cpo"])
def test_every_pairwise_algorithm_trains(make_recipe, algorithm):
    trained = train(make_recipe(algorithm=algorithm, constraint={"gate": "off"}))
    steps = history(trained.path)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert sum(step["rewards/margins"] for step in steps[-6:]) > 0  # one batch of eight may lie


def test_kto_learns_from_pairs_and_from_single_completions_and_is_guarded(make_recipe, tmp_path):
    trained = train(make_recipe("from_pairs", algorithm="kto", constraint={"gamma": 0.1}))
    steps = history(trained.path)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[0]["flip/rate"] == 0.0
    assert max(step["flip/constraint_loss"] for step in steps) > 0
    assert trained.metrics["rewards/chosen"] > trained.metrics["rewards/rejected"]
    rows = [{"prompt": f"w{n}", "completion": f" w{n + 1}", "label": n % 3 == 0} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    single = train(make_recipe("single", algorithm="kto", data={"train": "rows.jsonl", "eval": "rows.jsonl"}))
    assert single.metrics["eval_rewards/chosen"] > single.metrics["eval_rewards/rejected"]


def test_kto_can_be_guarded_by_the_whole_distribution_too(make_recipe):
    trained = train(make_recipe(algorithm="kto", constraint={"gate": "always", "divergence": "js", "gamma": 1}))
    steps = history(trained.path)
    assert steps[0]["flip/constraint_loss"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["flip/constraint_loss"] > 0


def test_a_target_flip_rate_moves_gamma_until_flips_are_rarer(make_recipe):
    trainer = {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "max_steps": 40, "use_cpu": True}
    target = {"gamma": 0, "target_flip_rate": 0.05, "adaptive_rate": 0.5}
    adaptive = history(train(make_recipe("adaptive", constraint=target, trainer=trainer)).path)
    plain = history(train(make_recipe("plain", constraint={"gate": "off"}, trainer=trainer)).path)
    gammas = [step["flip/gamma"] for step in adaptive]
    assert gammas[0] == 0.0
    for before, step, after in zip(gammas, adaptive, gammas[1:], strict=False):
        assert after == pytest.approx(max(0.0, before + 0.5 * (step["flip/rate"] - 0.05)))
    late = [sum(step["flip/rate"] for step in steps[-10:]) / 10 for steps in (adaptive, plain)]
    assert late[0] < late[1]


def test_measured_flips_are_guarded_more_and_the_file_belongs_to_the_run(make_recipe, tmp_path):
    rows = [json.loads(line) for line in (make_recipe().parent / "pairs.jsonl").read_text().splitlines()]
    (tmp_path / "flips.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows[:20]))
    flips = {"flips": "flips.jsonl", "flip_weight": 5.0}
    guarded = make_recipe("weighed", constraint={"gate": "always", **flips})
    runs = [train(path).path for path in (guarded, make_recipe("plain", constraint={"gate": "always"}))]
    weighed, plain = (sum(step["flip/constraint_loss"] for step in history(run)[:6]) for run in runs)  # one epoch
    assert 2 * plain < weighed < 4 * plain, "20 of 48 rows weigh 5: about 2.7"
    (tmp_path / "flips.jsonl").write_text(json.dumps({"prompt": rows[0]["prompt"]}) + "\n")
    with pytest.raises(RecipeError, match=r"was trained with another constraint\.flips than there is now"):
        train(guarded, resume=True)


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


def test_every_faster_way_trains_to_the_weights_of_the_plain_one(make_recipe):
    ways = ("prefix_sharing", "packing", "tiled_head", "reference_cache")
    short = {"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 8, "use_cpu": True}
    held_out = {"train": "pairs.jsonl", "eval": "pairs.jsonl"}
    off = dict.fromkeys((*ways, "slice_tokens"), "off")
    plain = train(make_recipe("plain", trainer=short, speed=off, data=held_out))
    assert not list(cache_folder().rglob("*.safetensors"))
    fast = train(make_recipe("fast", trainer=short, speed={"slice_tokens": 24}, data=held_out))
    assert fast.metrics["eval_loss"] == pytest.approx(plain.metrics["eval_loss"], abs=1e-4)
    for step, same_step in zip(history(plain.path), history(fast.path), strict=False):
        assert step.get("loss") == pytest.approx(same_step.get("loss"), abs=1e-4)
    ours, theirs = load_file(fast.path / "model.safetensors"), load_file(plain.path / "model.safetensors")
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-4


def test_a_model_that_cannot_be_read_faster_is_read_the_plain_way_and_one_line_says_so(
    make_recipe, tokenizer, tmp_path, capfd
):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "n_layer": 1, "n_head": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bloom")
    tokenizer.save_pretrained(tmp_path / "bloom")
    train(make_recipe(model=str(tmp_path / "bloom"), trainer={"max_steps": 2, "use_cpu": True}))
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("speed:")]
    assert told == [
        "speed: BloomForCausalLM: it takes no masks of ours, so prompts are not shared and rows are padded."
    ]


def test_accumulation_does_not_change_the_loss(make_recipe):
    """Two halves accumulated are one whole batch: same weights up to rounding."""
    base = {"learning_rate": 1e-2, "max_steps": 3, "use_cpu": True}
    whole = train(make_recipe("whole", trainer=base | {"per_device_train_batch_size": 8}))
    halves = base | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    half = train(make_recipe("half", trainer=halves))
    left, right = weights(whole.path), weights(half.path)
    assert all(left[name].allclose(right[name], atol=1e-4) for name in left)


@pytest.mark.parametrize(
    ("algorithm", "peft", "constraint"),
    [
        ("dpo", None, {"gamma": 0.1, "target_flip_rate": 0.1, "adaptive_rate": 0.1}),
        ("dpo", LORA, None),
        ("sft", None, None),
        ("kto", None, {"gamma": 0.1, "schedule": "cosine", "warmup": 0.2, "gate": "token"}),
    ],
    ids=["full", "lora", "sft", "kto"],
)
def test_a_killed_run_resumes_to_the_same_weights(make_recipe, tmp_path, algorithm, peft, constraint):
    trainer = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "max_steps": 40,
        "save_steps": 3,
        "use_cpu": True,
    }
    name = "model.safetensors" if peft is None else "adapter_model.safetensors"
    sections = {"algorithm": algorithm, "trainer": trainer, "peft": peft, "constraint": constraint}
    unbroken = train(make_recipe("unbroken", **sections))
    recipe = make_recipe("broken", **sections)
    command = [sys.executable, "-m", "flipguard", "train", str(recipe)]
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
    told = {"dpo": METRICS, "sft": {"loss", "mean_token_accuracy"}}.get(algorithm, UNPAIRED)
    steps = [[{key: entry.get(key) for key in told} for entry in history(run.path)] for run in (resumed, unbroken)]
    assert steps[0] == steps[1]
    assert train(recipe, resume=True).already_done


def test_a_torn_checkpoint_is_passed_over(make_recipe):
    recipe = make_recipe(trainer={"max_steps": 4, "save_steps": 2, "use_cpu": True, "learning_rate": 1e-2})
    finished = train(recipe)
    before = weights(finished.path)
    (finished.path / "checkpoint-4" / "trainer_state.json").unlink()
    record = json.loads((finished.path / "flipguard.json").read_text())
    (finished.path / "flipguard.json").write_text(json.dumps(record | {"finished": False}))
    assert same(weights(train(recipe, resume=True).path), before)


@pytest.mark.parametrize("name", ["trainer_state.json", "model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_a_checkpoint_with_a_torn_file_is_passed_over(make_recipe, name):
    recipe = make_recipe(trainer={"max_steps": 4, "save_steps": 2, "use_cpu": True, "learning_rate": 1e-2})
    finished = train(recipe)
    last = finished.path / "checkpoint-4"
    assert last_whole(finished.path) == last
    (last / name).write_bytes((last / name).read_bytes()[:-40])
    assert last_whole(finished.path) == finished.path / "checkpoint-2"
    (last / name).unlink()
    (finished.path / "checkpoint-final").mkdir()
    assert last_whole(finished.path) == (last if name == "rng_state.pth" else finished.path / "checkpoint-2")


def test_a_run_whose_data_changed_is_not_taken_for_the_same(make_recipe, make_pairs, tmp_path):
    recipe = make_recipe()
    train(recipe)
    assert train(recipe, resume=True).already_done
    make_pairs(tmp_path / "pairs.jsonl", seed=5)
    with pytest.raises(RecipeError, match=r"was trained with another data\.train than there is now"):
        train(recipe, resume=True)
    assert not train(recipe, overwrite=True).already_done


def test_files_of_others_are_never_deleted_unasked(make_recipe, tmp_path, model_folder):
    theirs = tmp_path / "dpo" / "checkpoint-500" / "precious.bin"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    with pytest.raises(RecipeError, match="not of this recipe"):
        train(make_recipe())
    assert theirs.exists()
    with pytest.raises(RecipeError, match="is the model's own folder"):
        train(make_recipe(), {"trainer.output_dir": str(model_folder)})


def test_a_damaged_record_can_be_overwritten(make_recipe):
    recipe = make_recipe()
    folder = train(recipe).path
    for damage in ("{", '{"finished": false, "recipe": 5}', '{"recipe": {}, "inputs": {}}'):
        (folder / "flipguard.json").write_text(damage)
        with pytest.raises(RecipeError, match=r"flipguard\.json"):
            train(recipe, resume=True)
        assert not train(recipe, overwrite=True).already_done


FULL = """
import resource, signal, sys
from flipguard.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
sys.exit(main(["train", sys.argv[1], "--resume"]))
"""


@pytest.mark.parametrize("room", [6_000, 30_000], ids=["weights", "optimizer"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(make_recipe, room):
    trainer = {"max_steps": 4, "save_steps": 2, "use_cpu": True, "learning_rate": 1e-2}
    recipe = make_recipe(trainer=trainer)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(recipe), str(room)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "weights cannot be written" in done.stderr
    assert "Make room, then go on with --resume." in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    resumed = train(recipe, resume=True)
    whole = train(make_recipe("whole", trainer=trainer))
    assert same(weights(resumed.path), weights(whole.path))


def test_a_record_does_not_depend_on_how_the_recipe_was_named(make_recipe, monkeypatch, tmp_path):
    recipe = make_recipe()
    train(recipe)
    monkeypatch.chdir(tmp_path)
    assert train(Path(recipe.name), resume=True).already_done


def test_two_runs_in_one_folder_do_not_meet(make_recipe, tmp_path):
    recipe = make_recipe()
    with locked(tmp_path / "dpo", way_out="Wait."), pytest.raises(DataError, match="another process is writing it"):
        train(recipe)


def test_an_adapter_is_merged_so_that_the_policy_starts_where_the_reference_is(make_recipe):
    sft = train(make_recipe("sft_lora", algorithm="sft", peft=LORA))
    for peft in (LORA, None):
        again = train(make_recipe(f"on_top_{peft is None}", model=str(sft.path), peft=peft))
        first = history(again.path)[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert (first["flip/rate"], first["kl/ref"]) == (0.0, pytest.approx(0.0, abs=1e-6))
        assert (again.path / "model.safetensors").exists(), "its base is in no folder, so the whole model is saved"
        assert not (again.path / "adapter_config.json").exists()


def test_bf16_rounds_policy_and_reference_alike(make_recipe, tmp_path):
    long = [{"prompt": "w1 w2", "chosen": "w3 w4 " * 14, "rejected": "w5 " * (3 + row)} for row in range(24)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    trained = train(make_recipe(trainer={"bf16": True, "max_steps": 2, "learning_rate": 0.0, "use_cpu": True}))
    for step in history(trained.path):
        assert step["flip/rate"] == 0.0
        assert abs(step["rewards/margins"]) < 1e-3


def test_yes_and_no_are_truth_values(make_recipe):
    trainer = {"max_steps": 2, "use_cpu": "yes", "gradient_checkpointing": "off", "learning_rate": "1e-2"}
    trained = train(make_recipe(trainer=trainer, peft=LORA | {"use_dora": "no"}))
    config = json.loads((trained.path / "adapter_config.json").read_text())
    assert config["use_dora"] is False


def test_a_model_that_diverged_is_no_result(make_recipe):
    trainer = {"max_steps": 6, "learning_rate": 1e30, "use_cpu": True}
    recipe = make_recipe(constraint={"gate": "always", "gamma": 1e38}, trainer=trainer)
    with pytest.raises(RecipeError, match="training diverged"):
        train(recipe)


def test_resuming_another_recipe_is_refused_by_the_key_that_differs(make_recipe):
    recipe = make_recipe()
    train(recipe)
    with pytest.raises(RecipeError, match=r"was begun with constraint.gamma = 0.01, the recipe now says 0.5"):
        train(recipe, {"constraint.gamma": "0.5"}, resume=True)
    assert not train(recipe, {"constraint.gamma": "0.5"}, overwrite=True).already_done


@pytest.mark.parametrize(
    ("sections", "error", "says"),
    [
        ({"model": "./missing"}, ModelError, "no such folder"),
        ({"model": "."}, ModelError, "neither config.json nor adapter_config.json"),
        ({"data": {"train": "none.jsonl"}}, DataError, "no such file"),
        ({"trainer": {"max_steps": 0}}, RecipeError, "max_steps: 0 trains nothing"),
        ({"trainer": {"lerning_rate": 1}}, RecipeError, "Did you mean 'learning_rate'"),
        ({"trainer": {"learning_rate": "fast"}}, RecipeError, "trainer.learning_rate: 'fast' is not possible"),
        ({"trainer": {"eval_strategy": "epoch", "use_cpu": True}}, RecipeError, "eval"),
        ({"trainer": {"remove_unused_columns": True}}, RecipeError, "is set by flipguard"),
        ({"trainer": {"label_smoothing_factor": 0.1}}, RecipeError, "has no effect here"),
        ({"trainer": {"learning_rate": -1}}, RecipeError, "trainer.learning_rate: -1.0 is not possible"),
        ({"trainer": {"gradient_accumulation_steps": 0}}, RecipeError, "it must be at least 1"),
        ({"trainer": {"output_dir": 5}}, RecipeError, "trainer.output_dir: 5 is no folder"),
        ({"loss": {"label_smoothing": 0.7}}, RecipeError, "it must be at least 0 and below 0.5"),
        ({"loss": {"label_smoothing": float("nan")}}, RecipeError, "loss.label_smoothing"),
        ({"peft": {"rank": 3}}, RecipeError, "peft: unknown key 'rank'"),
        (
            {"peft": {"r": 2, "target_modules": ["nonsense"]}},
            RecipeError,
            "trainer or peft: cannot be done (",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing_behind(make_recipe, tmp_path, sections, error, says):
    with pytest.raises(error) as raised:
        train(make_recipe(**sections))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, FlipGuardError)
    assert not (tmp_path / "dpo").exists()
