"""Ways to train in less memory, and where the metrics go: they change the means, not the result."""

import json

import pytest
import torch
from safetensors.torch import load_file

from flipguard.errors import ModelError, RecipeError
from flipguard.train.recipe import load_recipe
from flipguard.train.run import train

LORA = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}
PLAIN = {
    "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler_type": "constant", "use_cpu": True,
    "max_steps": 6, "per_device_train_batch_size": 8, "save_strategy": "no",
}  # fmt: skip


def losses(folder):
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_gradient_checkpointing_changes_no_weight(make_recipe, peft):
    name = "model.safetensors" if peft is None else "adapter_model.safetensors"
    recipes = [
        make_recipe(f"checkpointing_{on}", peft=peft, trainer=PLAIN | {"gradient_checkpointing": on})
        for on in (False, True)
    ]
    plain, again = (load_file(train(recipe).path / name) for recipe in recipes)
    assert max((plain[key] - again[key]).abs().max().item() for key in plain) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_bf16_has_the_losses_of_float32_up_to_its_rounding(make_recipe, peft):
    off = {"gate": "off"}  # in bfloat16 a loss below its rounding is no flip, so the guard sets in later
    recipes = [
        make_recipe(f"bf16_{on}", peft=peft, constraint=off, trainer=PLAIN | {"bf16": on}) for on in (False, True)
    ]
    exact, rounded = (losses(train(recipe).path) for recipe in recipes)
    assert rounded == pytest.approx(exact, abs=2e-2)
    assert rounded != exact


@pytest.mark.slow
def test_the_metrics_reach_tensorboard(make_recipe, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trained = train(make_recipe(trainer=PLAIN | {"report_to": "tensorboard"}))
    (file,) = (tmp_path / "logs").rglob("events.out.*")
    events = accumulator.EventAccumulator(str(file.parent))
    events.Reload()
    told = [event.value for event in events.Scalars("train/flip/rate")]
    entries = json.loads((trained.path / "trainer_state.json").read_text())["log_history"]
    assert told == pytest.approx([entry["flip/rate"] for entry in entries if "flip/rate" in entry])


def test_a_reporter_that_is_not_installed_is_one_line(make_recipe, monkeypatch):
    monkeypatch.setattr("flipguard.train.arguments.importlib.util.find_spec", lambda _: None)
    for name in ("wandb", "trackio"):
        with pytest.raises(RecipeError, match=f"report_to: needs the package '{name}'. Install it: pip install {name}"):
            train(make_recipe(trainer=PLAIN | {"report_to": name}))


def test_four_bit_weights_need_an_adapter_and_a_gpu(make_recipe, model_folder, tmp_path):
    model = {"path": str(model_folder), "quantization": "nf4"}
    with pytest.raises(RecipeError, match=r"4-bit weights cannot be trained\. Add a section 'peft'"):
        load_recipe(make_recipe(model=model))
    with pytest.raises(RecipeError, match=r"model\.quantization: unknown value 'int3'\. Choose one of: nf4"):
        load_recipe(make_recipe(model=model | {"quantization": "int3"}))
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="quantization nf4 needs a GPU, and there is none here"):
        train(make_recipe(model=model, peft=LORA))
    assert not (tmp_path / "dpo").exists()
