"""What is wrong with the data of a recipe: counted and listed by row, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from transformers import AutoConfig

from flipguard.errors import DataError, shown
from flipguard.files import to_json, write_bytes
from flipguard.train import models
from flipguard.train.data import Read, lengths_of, read_sources
from flipguard.train.dataspec import DataSpec
from flipguard.train.faults import FAULTS, Fault
from flipguard.train.formats import Kind
from flipguard.train.onlinespec import ONLINE
from flipguard.train.recipe import Recipe, load_recipe
from flipguard.train.sampling import action, phrase
from flipguard.train.tokenizing import RELABELLED

SCHEMA = "flipguard.data_report/1"
SHOWN_ROWS = 10  # of a fault, on a terminal; the file has them all
SHOWN_TEXT = 60  # letters of an example


@dataclass(frozen=True, slots=True)
class Finding:
    """Rows with one fault: their numbers in the source, counted from 0, and what becomes of them."""

    fault: str
    action: str
    says: str
    count: int
    rows: list[int]
    examples: list[str]


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source: how many rows it has, how many are trained on, what the others are."""

    key: str
    source: str
    format: str
    rows: int
    trained_on: int
    relabelled: int
    left_out: dict[str, int]
    beyond_context: list[int]
    longest: int
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class DataReport:
    """All sources of a recipe, and the file that has all of it."""

    sources: list[SourceReport]
    path: Path

    @property
    def trainable(self) -> bool:
        """Whether training would start: something to train on, and no fault that stops it."""
        train = [part for part in self.sources if part.key.startswith("data.train")]
        stopped = any(finding.action == "stop" for part in self.sources for finding in part.findings)
        beyond = any(part.beyond_context for part in self.sources)
        return any(part.trained_on for part in train) and not stopped and not beyond

    def to_json(self) -> dict[str, Any]:
        """As data_report.json has it; every row of every fault is listed."""
        return {"schema": SCHEMA, "trainable": self.trainable, "sources": [asdict(part) for part in self.sources]}

    def render(self) -> str:
        """For a terminal."""
        end = f"All rows of every fault, counted from 0: {self.path}\n"
        end += "This data can be trained on." if self.trainable else "This data cannot be trained on as the recipe is."
        return "\n\n".join([*map(_render, self.sources), end])


def check_data(path: Path, overrides: dict[str, str] | None = None, *, out: Path | None = None) -> DataReport:
    """Read the data of a recipe as training would, and write what is wrong with it.

    Args:
        path: the recipe.
        overrides: dotted key to YAML value.
        out: the file to write; default: `data_report.json` beside the output folder, with its name before it.

    Raises:
        FlipGuardError: recipe, tokenizer or data cannot be read.
    """
    recipe = load_recipe(path, overrides)
    tokenizer = models.load_tokenizer(recipe.model)
    context = _context(recipe)
    reports = []
    for key, source in recipe.data.named().items():
        (read,) = read_sources(source, recipe.data, kind_of(recipe.algorithm), tokenizer)
        reports.append(_source_report(key, read, recipe.data, tokenizer, context))
    report = DataReport(reports, out or recipe.output_dir.with_name(f"{recipe.output_dir.name}.data_report.json"))
    write_bytes(report.path, to_json(report.to_json(), orjson.OPT_INDENT_2) + b"\n")
    return report


def kind_of(algorithm: str) -> Kind:
    """What rows it learns from."""
    special: dict[str, Kind] = {"sft": "supervised", "kto": "unpaired", **dict.fromkeys(ONLINE, "prompts")}
    return special.get(algorithm, "pairs")


def _context(recipe: Recipe) -> int | None:
    """What the model can read, in tokens, from its config alone; None where that is not said, as of an adapter.

    Online, less what the answer may take.
    """
    if models.is_adapter(recipe.model):
        return None
    try:
        config = AutoConfig.from_pretrained(recipe.model.path, revision=recipe.model.revision)
    except Exception as error:  # noqa: BLE001 - the hub and transformers raise dozens of types here
        raise DataError(f"{recipe.model.path}: has no readable config ({shown(str(error), 120)}).") from None
    said = config.get_text_config().to_dict()
    length: int | None = said.get("max_position_embeddings") or said.get("n_positions")
    if length is None or recipe.algorithm not in ONLINE:
        return length
    return max(0, length - recipe.rollout.max_new_tokens)


def _source_report(key: str, read: Read, spec: DataSpec, tokenizer: Any, context: int | None) -> SourceReport:
    selection, columns = read.selection, read.table.columns
    findings = [_finding(fault, read, spec, tokenizer) for fault in FAULTS]
    rows = selection.rows
    lengths = lengths_of(read.table, np.arange(len(columns)))
    beyond = rows[lengths[rows] > context] if context is not None else rows[:0]
    return SourceReport(
        key=key,
        source=str(read.source),
        format=read.table.form,
        rows=len({*columns["number"].tolist()}),
        trained_on=len(rows),
        relabelled=int(((columns["faults"][selection.considered] & RELABELLED) != 0).sum()),
        left_out=dict(sorted(selection.left_out.items())),
        beyond_context=sorted({*columns["number"][beyond].tolist()}),
        longest=int(lengths[rows].max()) if len(rows) else 0,
        findings=[finding for finding in findings if finding.count],
    )


def _finding(fault: Fault, read: Read, spec: DataSpec, tokenizer: Any) -> Finding:
    key, _, told = FAULTS[fault]
    considered, columns = read.selection.considered, read.table.columns
    bad = considered[(read.selection.faults[considered] & fault) != 0]
    bad.sort()
    numbers = list(dict.fromkeys(columns["number"][bad].tolist()))
    examples = [_example(read, int(row), tokenizer) for row in bad[:1]]
    return Finding(key, action(fault, spec), phrase(told, spec), len(numbers), numbers, examples)


def _example(read: Read, row: int, tokenizer: Any) -> str:
    """The place of a row and the reason, or the end of its prompt and how its completions begin."""
    reason = read.table.reasons.get(int(read.table.columns["number"][row]))
    if reason is not None:
        return f"{read.place(row)}: {reason}"
    prompt, *completions = (tokenizer.decode(ids) for ids in read.table.parts(row))
    answers = " | ".join(shown(text, SHOWN_TEXT) for text in completions)
    return f"{read.place(row)}: ... {shown(prompt[-SHOWN_TEXT // 2 :], SHOWN_TEXT)} -> {answers}"


def _render(part: SourceReport) -> str:
    read = f"{part.rows:,} rows in the format {part.format}, {part.trained_on:,} to train on"
    lines = [f"{part.key}: {part.source}: {read}, the longest of {part.longest:,} tokens"]
    if part.relabelled:
        lines.append(f"  {part.relabelled:,} pairs turned round by the reward model")
    lines += [f"  left out: {count:,} {reason}" for reason, count in part.left_out.items()]
    if part.beyond_context:
        count = len(part.beyond_context)
        lines.append(f"  stops: {count:,} longer than the model can read: rows {_some(part.beyond_context)}")
        lines.append("    lower data.max_prompt_tokens, or data.max_completion_tokens (online: rollout.max_new_tokens)")
    for finding in part.findings:
        verb = {"leave_out": "left out", "keep": "kept", "stop": "stops"}[finding.action]
        lines.append(f"  {finding.count:,} {finding.says} ({finding.fault}, {verb}): rows {_some(finding.rows)}")
        lines += [f"    {example}" for example in finding.examples]
    return "\n".join(lines if len(lines) > 1 else [*lines, "  nothing wrong with them"])


def _some(rows: list[int]) -> str:
    rest = len(rows) - SHOWN_ROWS
    return ", ".join(map(str, rows[:SHOWN_ROWS])) + (f" and {rest:,} more" if rest > 0 else "")
