"""Write a result: comparison.json, flips.jsonl, then the views of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from flipguard.evaluate.change import flips
from flipguard.evaluate.columns import Columns
from flipguard.evaluate.comparison import Result
from flipguard.evaluate.pairs import Pairs
from flipguard.files import to_json, write_bytes, write_jsonl, write_text
from flipguard.records import Row

SUMMARY = "GITHUB_STEP_SUMMARY"  # where it is set, the page of a workflow run shows what is appended to that file
SUMMARY_BYTES = 1_000_000  # more than 1 MiB a step is refused as a whole


def write_results(folder: Path, result: Result) -> list[Path]:
    """Write all result files into `folder`, each whole or not at all, and return their paths.

    The data come first, so that they are there even if a view cannot be made.
    """
    comparison, flips = folder / "comparison.json", folder / "flips.jsonl"
    write_bytes(comparison, to_json(result.comparison.to_json(), orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    write_jsonl(flips, flip_rows(result))
    written = [comparison, flips]
    for name, text in _views(result):
        write_text(folder / name, text)
        written.append(folder / name)
    return written


def append_summary(report: Path) -> None:
    """Append `report` to the workflow's summary, where there is one; what goes wrong there is a warning, no more."""
    target = os.environ.get(SUMMARY)
    if not target:
        return
    try:
        text = b"\n" + report.read_bytes() + b"\n"
        with Path(target).open("ab") as summary:
            if summary.tell() + len(text) > SUMMARY_BYTES:
                raise OSError(f"it would grow beyond {SUMMARY_BYTES:,} bytes")
            summary.write(text)
    except OSError as error:
        sys.stderr.write(f"flipguard compare: warning: ${SUMMARY}: {error.strerror or error}; {report} has the text.\n")


def flip_rows(result: Result) -> Iterator[Row]:
    """One row per negative flip, the worst first; where there are no scores, in the order of the old run."""
    pairs = Pairs.of(result.pairs)
    worst = sorted(flips(pairs, result.comparison.margin), key=lambda flip: -(flip[1] or 0.0))
    return (_row(pairs, row, fall) for row, fall in worst)


def _row(pairs: Pairs, row: int, severity: float | None) -> Row:
    identifier, repeat = pairs.old.order[row]
    return {
        "id": identifier,
        "repeat": repeat,
        "severity": severity,
        "change": pairs.changes()[row],
        "prompt": pairs.prompt(row),
        "category": list(pairs.categories[row]),
        "cluster": pairs.clusters[row],
        "old": _side(pairs.old, row),
        "new": _side(pairs.new, row),
        "verdicts": list(pairs.verdicts[row]) if pairs.verdicts else [],
    }


def _side(answers: Columns, row: int) -> Row:
    told = {"score": answers.scores[row], "completion": answers.completions[row]}
    return {**told, "reason": answers.rationales[row]} if answers.rationales else told


def _views(result: Result) -> Iterator[tuple[str, str]]:
    from flipguard.evaluate.report import html, junit, markdown

    yield "report.md", markdown.render(result.comparison, result.pairs)
    yield "junit.xml", junit.render(result.comparison)
    yield "report.html", html.render(result.comparison, result.pairs)
