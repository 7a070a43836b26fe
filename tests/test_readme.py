"""What the README shows is what happens: its code, its commands and its recipe are run."""

import json
import re
import shlex
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from flipguard.cli import main
from flipguard.objective.preference import PREFERENCE_LOSSES
from flipguard.train.recipe import ConstraintSpec, DataSpec, Recipe, load_recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, right in (("old", 390), ("new", 395)):
        rows = ({"id": number, "correct": number < right} for number in range(400))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.usefixtures("two_runs")
def test_the_lines_for_your_own_script_run(capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # the reader's own script
    assert capsys.readouterr().out.startswith("pass 0.0 ")


@pytest.mark.usefixtures("two_runs")
def test_the_measuring_commands_run(capsys):
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    ran = [words[1] for words in map(shlex.split, commands) if words[1] in ("compare", "plan") and main(words[1:]) == 0]
    assert ran == ["compare", "plan"]
    assert "PASS" in capsys.readouterr().out


def test_the_rows_it_shows_are_rows():
    for line in "".join(blocks("json")).splitlines():
        assert "id" in json.loads(line)


def test_the_recipe_it_shows_is_a_recipe(tmp_path):
    (text,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml", {"constraint.gamma": "0.05"})
    assert (recipe.algorithm, recipe.constraint.gamma) == ("dpo", 0.05)


def test_every_file_it_links_to_is_there():
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_training_page_has_a_row_for_every_loss_with_its_defaults():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for name, row in PREFERENCE_LOSSES.items():
        (cells,) = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        shown = dict(re.findall(r"`(\w+)` ([\w.]+)", cells[2]))
        parameters = {key: item for key, item in signature(row.function).parameters.items() if key != "logps"}
        defaults = {key: 0.1 if item.default is item.empty else item.default for key, item in parameters.items()}
        assert shown == {key: str(value).lower() for key, value in defaults.items()}, name
        assert ("asks no π₀" in cells[1]) is row.reference_free, name


def test_the_training_page_names_every_metric_and_key():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    names = [item.name for kind in (Recipe, ConstraintSpec, DataSpec) for item in fields(kind)]
    metrics = ["flip/rate", "flip/margin", "flip/constraint_loss", "flip/gamma", "kl/ref", "rewards/accuracies"]
    missing = [name for name in (*names, *metrics) if f"`{name}`" not in page]
    assert not missing
