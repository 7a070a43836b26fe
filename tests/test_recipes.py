"""The shipped recipes and launch configurations can be read as they are, and say where their values come from."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from ruamel.yaml import YAML

from flipguard.train.arguments import lora_config, training_arguments
from flipguard.train.guarded_loss import guarded_loss
from flipguard.train.onlinespec import ONLINE
from flipguard.train.recipe import load_recipe

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted({*FOLDER.glob("*.yaml"), *FOLDER.glob("paper/*.yaml")})
LAUNCHES = sorted(FOLDER.glob("accelerate/*.yaml"))
PAPER = {  # gamma, beta, learning rate
    "ultrafeedback": (0.01, 0.1, 9.65e-6),
    "hh": (0.01, 0.1, 9.65e-6),
    "summarization": (0.005, 0.05, 1e-6),
    "cvalues": (1.0, 0.1, 1e-6),
}
GATES = {
    f"{algorithm}{method}": gate
    for algorithm in ("dpo", "ppo")
    for method, gate in (("", "off"), ("_kd", "always"), ("_flipguard", "flip"))
}
PPO = {  # DeepSpeed-Chat's
    "reward_clip_range": [-5, 5], "epsilon": 0.2, "value_clip": 0.2, "discount": 1.0, "gae_lambda": 0.95,
    "num_iterations": 1, "critic_learning_rate": 5e-6,
}  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_down_to_its_loss_and_its_training_arguments(path, tmp_path):
    recipe = load_recipe(path, {"trainer.output_dir": str(tmp_path / "out"), "trainer.use_cpu": "true"})
    arguments = training_arguments(recipe, place=str(path))
    assert arguments.num_train_epochs == (1 if recipe.algorithm in ("reward", "rloo") else 2)
    assert (lora_config(recipe, place=str(path)) is None) == (path.stem == "full")
    if recipe.algorithm not in ("sft", "reward", *ONLINE):
        guarded_loss(recipe, place=str(path), precision=torch.bfloat16)


def test_the_papers_rows_carry_the_papers_values():
    assert {path.stem for path in RECIPES if path.parent.name == "paper"} == {
        f"{name}_{method}" for name in PAPER for method in ("sft", "reward", *GATES)
    }
    for name, (gamma, beta, rate) in PAPER.items():
        for method, gate in GATES.items():
            recipe = load_recipe(FOLDER / "paper" / f"{name}_{method}.yaml")
            assert recipe.constraint.gate == gate
            ppo = recipe.algorithm == "ppo"
            assert recipe.loss == ({"beta": 0.1, **PPO} if ppo else {"beta": beta})
            assert not ppo or (recipe.constraint.epsilon, recipe.rollout.temperature) == (0.1, 0.0)
            assert recipe.trainer["learning_rate"] == rate
            assert (recipe.trainer["lr_scheduler_type"], recipe.trainer["weight_decay"]) == ("cosine", 0.1)
            assert recipe.trainer["gradient_accumulation_steps"] == 2
            if gate != "off":
                assert recipe.constraint.gamma == (0.01 if ppo and name == "cvalues" else gamma)


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent.name == "paper"], ids=lambda path: path.stem)
def test_every_value_of_a_papers_row_says_where_it_comes_from(path):
    known = ("algorithm:", "data:", "loss:", "trainer:", "output_dir:", "train:", "lora_alpha:")
    for line in path.read_text().splitlines():
        if line and not line.startswith("#") and not line.strip().startswith(known):
            assert "  # " in line, line


@pytest.mark.parametrize("path", LAUNCHES, ids=lambda path: path.stem)
def test_a_launch_configuration_is_one_accelerate_reads(path):
    config = load_config_from_file(str(path))
    kinds = {"one_gpu": "NO", "ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}
    assert config.distributed_type.value == kinds[path.stem]
    assert config.mixed_precision == "no", "the recipe says trainer.bf16"
    assert config.num_processes == (1 if path.stem == "one_gpu" else 4)


def test_there_is_a_launch_configuration_for_each_way_to_share():
    assert {path.stem for path in LAUNCHES} == {"one_gpu", "ddp", "zero2", "zero3", "fsdp2"}
    said = {path.stem: YAML(typ="safe").load(path) for path in LAUNCHES}
    for stage in (2, 3):
        assert said[f"zero{stage}"]["deepspeed_config"]["zero_stage"] == stage
        assert said[f"zero{stage}"]["deepspeed_config"]["gradient_accumulation_steps"] == "auto"
    assert said["fsdp2"]["fsdp_config"]["fsdp_version"] == 2
    assert said["fsdp2"]["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] is False, "every process asks the reference"
