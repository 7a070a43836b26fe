"""Write a result: comparison.json, flips.jsonl, then the views of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import orjson

from flipguard.errors import DataError
from flipguard.evaluate.columns import without_collector
from flipguard.evaluate.comparison import Result
from flipguard.evaluate.flipfile import NAME as FLIPS
from flipguard.evaluate.flipfile import flip_rows, lines
from flipguard.files import to_json, to_utf8, write_together

NAMES = ("comparison.json", FLIPS, "report.md", "junit.xml", "report.html")
SUMMARY = "GITHUB_STEP_SUMMARY"  # where it is set, the page of a workflow run shows what is appended to that file
SUMMARY_BYTES = 1_000_000  # more than 1 MiB a step is refused as a whole


@without_collector()
def write_results(folder: Path, result: Result) -> list[Path]:
    """Write all result files into `folder` and return their paths: all or none, so that they are always of one run.

    Where a view cannot be made, the data are written without any.

    Raises:
        DataError: the folder cannot be written to, is full, or holds an input of this comparison under such a name.
    """
    _refuse_inputs(folder, result)
    whole = to_json(result.comparison.to_json(), orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    try:
        views = [(folder / name, [to_utf8(text)]) for name, text in _views(result)]
    except Exception:
        write_together(_data(folder, whole, result))
        raise
    return write_together(chain(_data(folder, whole, result), views))


def _data(folder: Path, whole: bytes, result: Result) -> Iterator[tuple[Path, Iterable[bytes] | Path]]:
    yield folder / "comparison.json", [whole]
    begun = result.draft is not None and result.draft.temporary.parent == folder
    yield folder / FLIPS, result.draft.finished() if result.draft and begun else lines(flip_rows(result))


def _refuse_inputs(folder: Path, result: Result) -> None:
    """What was read must not be overwritten: the reports name it, and it may be the only copy."""
    inputs = result.comparison.provenance.get("inputs", [])
    for given in (Path(given["path"]) for given in inputs if "path" in given):
        if given.name in NAMES and given.exists() and folder.exists() and given.parent.samefile(folder):
            raise DataError(f"{given}: is an input of this comparison and would be overwritten. Choose another --out.")


def append_summary(report: Path) -> None:
    """Append `report` to the workflow's summary, where there is one; what goes wrong there is a warning, no more."""
    target = os.environ.get(SUMMARY)
    if not target:
        return
    try:
        text = b"\n" + report.read_bytes() + b"\n"
        if Path(target).exists() and not Path(target).is_file():
            raise OSError("it is no regular file")
        with Path(target).open("ab") as summary:
            if summary.tell() + len(text) > SUMMARY_BYTES:
                raise OSError(f"it would grow beyond {SUMMARY_BYTES:,} bytes")
            summary.write(text)
    except OSError as error:
        sys.stderr.write(f"flipguard compare: warning: ${SUMMARY}: {error.strerror or error}; {report} has the text.\n")


def _views(result: Result) -> Iterator[tuple[str, str]]:
    from flipguard.evaluate.report import html, junit, markdown

    yield "report.md", markdown.render(result.comparison, result.pairs)
    yield "junit.xml", junit.render(result.comparison)
    yield "report.html", html.render(result.comparison, result.pairs)
