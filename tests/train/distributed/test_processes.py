"""Two processes train to the weights of one, say what one says, and go on after a kill."""

import json
import os
import time

import pytest
from safetensors.torch import load_file

from flipguard.train.run import train

pytestmark = pytest.mark.slow

LORA = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}
PLAIN = {
    "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler_type": "constant", "use_cpu": True,
    "max_steps": 20, "save_steps": 2,
}  # fmt: skip


def history(folder):
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    told = [{key: entry[key] for key in entry if "/" in key or key in ("loss", "eval_loss")} for entry in entries]
    return [entry for entry in told if entry]


def checkpoints(folder):
    """The steps of the checkpoints that are there."""
    return {int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoint-*/trainer_state.json")}


ADAPTIVE = {"gamma": 0.5, "target_flip_rate": 0.2, "adaptive_rate": 0.1, "gate": "token"}


@pytest.mark.parametrize(
    "sections",
    [
        {"constraint": ADAPTIVE, "speed": {"slice_tokens": 1}},
        {"constraint": {"gamma": 0.5}, "peft": LORA},
        {"constraint": ADAPTIVE, "algorithm": "kto"},
        {"algorithm": "sft"},
    ],
    ids=["full", "lora", "kto", "sft"],
)
def test_two_processes_killed_in_their_second_epoch_end_in_the_weights_and_metrics_of_one(
    make_recipe, make_pairs, tmp_path, monkeypatch, launch, sections
):
    """Ten pairs: the last batch of an epoch is partial on one process and empty on the other."""
    algorithm = sections.get("algorithm", "dpo")
    make_pairs(tmp_path / "pairs.jsonl", count=12 if algorithm == "sft" else 10)  # TRL counts some rows twice
    data = {"train": "pairs.jsonl"} | ({} if algorithm == "sft" else {"eval": "pairs.jsonl"})
    sections = sections | {"data": data}
    alone = train(make_recipe("alone", trainer=PLAIN | {"per_device_train_batch_size": 4}, **sections))
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "another_cache"))  # so that the reference is shared out too
    trainer = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 3}
    recipe = make_recipe("two", trainer=PLAIN | trainer, **sections)
    process = launch.start("train", recipe)
    while not any(step > 3 for step in checkpoints(tmp_path / "two")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    launch.kill(process)
    assert not list((tmp_path / "two").glob("*model.safetensors"))
    code, output, errors = launch.finish(launch.start("train", recipe, "--resume", "--json"))
    assert code == 0, errors
    assert json.loads(output)["already_done"] is False, "one process speaks for both"
    assert errors.count({"kto": "20 rows", "sft": "12 rows"}.get(algorithm, "10 rows")) == len(data)
    name = "adapter_model.safetensors" if "peft" in sections else "model.safetensors"
    left, right = load_file(alone.path / name), load_file(tmp_path / "two" / name)
    assert max((left[key] - right[key]).abs().max().item() for key in left) < 1e-6
    steps, others = history(alone.path), history(tmp_path / "two")
    assert len(steps) == len(others)
    for step, other in zip(steps[1:], others[1:], strict=True):  # in the first all pairs are level, up to rounding
        assert other == pytest.approx(step, abs=1e-5)
    assert algorithm == "sft" or max(step.get("flip/rate", 0) for step in steps) > 0


def test_two_processes_keep_the_checkpoint_that_one_keeps(make_recipe, tmp_path, monkeypatch, launch):
    (tmp_path / "my_scorers.py").write_text(
        "def length(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"id": number, "prompt": f"w{number} w1"} for number in range(7)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    select = {"prompts": "prompts.jsonl", "scorer": "my_scorers:length", "max_new_tokens": 8}
    trainer = PLAIN | {"learning_rate": 1.0, "max_steps": 8, "eval_strategy": "steps", "eval_steps": 2}
    del trainer["save_steps"]
    sections = {"data": {"train": "pairs.jsonl", "eval": "pairs.jsonl"}, "select": select}
    cut = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 2}
    alone = train(make_recipe("alone", trainer=trainer | cut, **sections))
    recipe = make_recipe("two", trainer=trainer | cut | {"per_device_train_batch_size": 4}, **sections)
    code, _, errors = launch.finish(launch.start("train", recipe, PYTHONPATH=path_with(tmp_path)))
    assert code == 0, errors
    states = [json.loads((path / "trainer_state.json").read_text()) for path in (alone.path, tmp_path / "two")]
    told = [[entry["eval_selection"] for entry in state["log_history"] if "eval_nfr" in entry] for state in states]
    assert told[0] == pytest.approx(told[1])
    assert len(set(told[0])) > 1
    assert states[0]["best_global_step"] == states[1]["best_global_step"]
    left, right = (load_file(path / "model.safetensors") for path in (alone.path, tmp_path / "two"))
    assert max((left[key] - right[key]).abs().max().item() for key in left) < 1e-5


def path_with(folder):
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_an_error_of_both_processes_is_one_line(make_recipe, launch):
    code, output, errors = launch.finish(
        launch.start("train", make_recipe(peft=LORA | {"target_modules": ["nonsense"]}))
    )
    lines = [line for line in errors.splitlines() if line.startswith("flipguard")]
    assert code != 0
    assert output == ""
    assert len([line for line in lines if line.startswith("flipguard train: ")]) == 1
    assert "exitcode  : 2" in errors
    assert "Traceback" not in errors.split("torch/distributed/elastic")[0]


def test_online_two_processes_broken_off_end_in_what_two_unbroken_ones_end_in(make_recipe, tmp_path, launch):
    """Each process draws answers of its own, so two are held against two."""
    (tmp_path / "even_words.py").write_text(
        "def even(prompts, completions, **columns):\n"
        "    said = [answer[0]['content'].split() for answer in completions]\n"
        "    return [sum(word[1:] in '02468' for word in words) / 8 for words in said]\n"
    )
    rows = [{"id": n, "prompt": [{"role": "user", "content": f"w{n} w{n + 1}"}]} for n in range(10)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = {"learning_rate": 1e-2, "per_device_train_batch_size": 2, "max_steps": 6, "save_steps": 2}
    recipe = make_recipe(
        "two",
        algorithm="rloo",
        data={"train": "prompts.jsonl"},
        reward="even_words:even",
        rollout={"max_new_tokens": 8, "samples": 2},
        constraint=ADAPTIVE | {"gate": "flip", "epsilon": 0.0},
        trainer=trainer | {"use_cpu": True, "save_total_limit": 3},
    )
    there, folder = {"PYTHONPATH": path_with(tmp_path)}, tmp_path / "two"
    code, _, errors = launch.finish(launch.start("train", recipe, **there))
    assert code == 0, errors
    assert errors.count("10 prompts") == errors.count("reference: 10 answers") == 1
    whole, steps = load_file(folder / "model.safetensors"), history(folder)
    assert len({step["flip/gamma"] for step in steps if "flip/gamma" in step}) > 3
    for later in (4, 6):
        (folder / f"checkpoint-{later}" / "trainer_state.json").unlink()
    record = json.loads((folder / "flipguard.json").read_text())
    (folder / "flipguard.json").write_text(json.dumps(record | {"finished": False}))
    code, _, errors = launch.finish(launch.start("train", recipe, "--resume", **there))
    assert code == 0, errors
    again = load_file(folder / "model.safetensors")
    assert all((whole[key] == again[key]).all() for key in whole)
    assert [step | {"step_time": 0} for step in history(folder)] == [step | {"step_time": 0} for step in steps]
