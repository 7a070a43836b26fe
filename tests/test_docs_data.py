"""docs/data.md says what the code does: every table row and every recipe in it."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from flipguard.train.dataspec import DataSpec, FaultPolicy, SourceSpec
from flipguard.train.formats import FORMATS

TEXT = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def rows_under(heading):
    section = TEXT.split(heading, 1)[1].split("\n## ", 1)[0]
    cells = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name: row[1].strip() for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def test_every_format_stands_in_the_table():
    assert list(rows_under("\n## Formats")) == [item.name for item in FORMATS]


def test_every_fault_stands_in_the_table_with_its_default():
    policy = FaultPolicy()
    told = rows_under("\n## Faults")
    assert told == {name: getattr(policy, name) for name in vars(policy) if not name.startswith("_")}


def test_every_key_of_a_source_stands_in_the_table():
    keys = rows_under("\n## Where rows come from")
    assert keys.keys() == {name for name in vars(SourceSpec("d")) if not name.startswith("_")}


def test_every_recipe_can_be_said():
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert [len(DataSpec(**YAML(typ="safe").load(block)["data"]).train) for block in blocks] == [2, 2, 1]
