"""Weights that are shared out over two CPU processes give the same loss, gradients and model as whole ones."""

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from flipguard.train.run import train

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[3] / "recipes" / "accelerate"
PLAIN = {
    "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler_type": "constant", "use_cpu": True,
    "max_steps": 8, "save_strategy": "no",
}  # fmt: skip


def test_fully_sharded_weights_have_the_loss_and_gradients_of_whole_ones(model_folder, launch):
    """FSDP2 on a CPU mesh. What a GPU would add is not claimed: `accelerate launch` without one starts no FSDP."""
    script = str(Path(__file__).parent / "sharded.py")
    done = subprocess.run([*launch.torchrun, script, str(model_folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed: .[deepspeed]")
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_zero_trains_to_the_weights_of_one_process(stage, make_recipe, make_pairs, tmp_path, launch):
    """The shipped configuration, on two CPU processes; the first run compiles an operation of DeepSpeed's."""
    make_pairs(tmp_path / "pairs.jsonl", count=10)
    guard = {"gamma": 0.5}
    alone = train(make_recipe("alone", constraint=guard, trainer=PLAIN | {"per_device_train_batch_size": 4}))
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    recipe = make_recipe("shared", constraint=guard, trainer=PLAIN | cut)
    config = YAML(typ="safe").load(CONFIGS / f"{stage}.yaml") | {"num_processes": 2, "use_cpu": True}
    (tmp_path / "cpu.json").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    module = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", port]
    launcher = [*module, "--config_file", str(tmp_path / "cpu.json")]
    process = launch.start("train", recipe, launcher=launcher, DS_ACCELERATOR="cpu", DS_BUILD_OPS="0")
    code, _, errors = launch.finish(process)
    assert code == 0, errors
    left, right = load_file(alone.path / "model.safetensors"), load_file(tmp_path / "shared" / "model.safetensors")
    assert max((left[key] - right[key]).abs().max().item() for key in left) < 1e-6
