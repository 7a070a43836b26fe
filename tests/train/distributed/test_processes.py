"""Two processes train to the weights of one, say what one says, and go on after a kill."""

import json
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
        {"constraint": ADAPTIVE},
        {"constraint": {"gamma": 0.5}, "peft": LORA},
        {"constraint": ADAPTIVE, "algorithm": "kto"},
    ],
    ids=["full", "lora", "kto"],
)
def test_two_processes_killed_in_their_second_epoch_end_in_the_weights_and_metrics_of_one(
    make_recipe, make_pairs, tmp_path, monkeypatch, launch, sections
):
    """Ten pairs: the last batch of an epoch is partial on one process and empty on the other."""
    make_pairs(tmp_path / "pairs.jsonl", count=10)
    sections = sections | {"data": {"train": "pairs.jsonl", "eval": "pairs.jsonl"}}
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
    assert errors.count("20 rows" if "algorithm" in sections else "10 rows") == 2
    name = "adapter_model.safetensors" if "peft" in sections else "model.safetensors"
    left, right = load_file(alone.path / name), load_file(tmp_path / "two" / name)
    assert max((left[key] - right[key]).abs().max().item() for key in left) < 1e-6
    steps, others = history(alone.path), history(tmp_path / "two")
    assert len(steps) == len(others)
    for step, other in zip(steps[1:], others[1:], strict=True):  # in the first all pairs are level, up to rounding
        assert other == pytest.approx(step, abs=1e-5)
    assert max(step.get("flip/rate", 0) for step in steps) > 0


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
