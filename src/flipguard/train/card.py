"""The model card: what was trained, on what, with which recipe, and what came of it."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from flipguard import __version__
from flipguard.train.recipe import UNGUARDED, Recipe

INTRODUCTION = {
    "sft": "Supervised fine-tuning: the model that alignment starts from.",
    "reward": "A reward model: the higher its score, the better the answer (Bradley and Terry).",
    "off": "Preference alignment without a guard.",
    "flip": "Preference alignment guarded against negative flips: examples that got worse than under the reference "
    "are pulled back to it.",
    "always": "Preference alignment with distillation on every example (the guard's baseline).",
    "token": "Preference alignment guarded against negative flips token by token: tokens that became less likely than "
    "under the reference are pulled back to it.",
    "soft": "Preference alignment guarded against negative flips, softly also where nothing flipped.",
}


def model_card(recipe: Recipe, *, data: str, metrics: dict[str, float], chosen: str | None = None) -> str:
    """README.md of the output folder, with metadata the hub understands.

    Args:
        recipe: what was asked.
        data: one line on the rows used and left out.
        metrics: the last logged value of each metric.
        chosen: which checkpoint this is and why, where it is not the last.
    """
    header = {"library_name": "transformers", "base_model": recipe.model.path, "tags": ["flipguard", recipe.algorithm]}
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(metrics.items()))
    kind = recipe.algorithm if recipe.algorithm in UNGUARDED else recipe.constraint.gate
    return (
        f"---\n{_yaml(header)}---\n\n# {recipe.output_dir.name}\n\n{INTRODUCTION[kind]}\n\n"
        f"Trained with FlipGuard {__version__} on {data}.\n\n"
        f"{f'## Which checkpoint{chr(10) * 2}{chosen}{chr(10) * 2}' if chosen else ''}"
        f"## Recipe\n\n```yaml\n{_yaml(recipe.to_json())}```\n\n"
        f"## At the end of training\n\n| metric | value |\n|---|---|\n{rows}\n"
    )


def _yaml(content: Any) -> str:
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(content, text)
    return text.getvalue()
