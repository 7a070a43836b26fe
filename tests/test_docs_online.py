"""docs/online.md: its recipe is read down to TRL's arguments, and its table has every key of `rollout`."""

import re
from dataclasses import fields
from pathlib import Path

from flipguard.train.arguments import training_arguments
from flipguard.train.onlinespec import RolloutSpec
from flipguard.train.recipe import load_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "online.md").read_text(encoding="utf-8")


def test_the_recipe_of_the_page_is_one(tmp_path):
    (code,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "rloo.yaml").write_text(code)
    recipe = load_recipe(tmp_path / "rloo.yaml", {"trainer.use_cpu": "true"})
    arguments = training_arguments(recipe, place="rloo.yaml")
    assert (arguments.beta, arguments.num_generations, arguments.max_completion_length) == (0.05, 4, 256)
    assert (arguments.gamma, arguments.flip_margin, arguments.gate) == (0.01, 0.1, "flip")


def test_the_table_has_every_key_of_rollout():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    said = "\n".join(rows)
    assert all(f"`{item.name}`" in said for item in fields(RolloutSpec))
