"""AlpacaEval: `annotations.json`, an array of preferences between output_1, the baseline, and output_2.

One file alone compares its two models, generator_1 as the old one: each answer scores the judge's probability that it
is the better one. Two files, each of a model against the same baseline, compare how those two do against it. The
instruction is the key, and the category the data set it is from. Each pair was judged in one order only.
"""

from __future__ import annotations

import hashlib
import math

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.fields import rationale_of
from flipguard.evaluate.intake import Intake, Shelf, gather
from flipguard.evaluate.runs import Entry, Judged, Judgment, Key, Run
from flipguard.evaluate.source import Source, lenient_json
from flipguard.records import Row

ONE_ORDER = "AlpacaEval judged each pair in one order only, so that position bias is not controlled."


def recognise(source: Source) -> str | None:
    """Rows have an instruction and a preference."""
    if not source.rows:
        return source.why_no_rows()
    keys = {"instruction", "preference"}
    return None if any(keys <= row.keys() for row in source.rows) else "no row has 'instruction' and 'preference'"


def read(source: Source, intake: Intake) -> Run | Judged:
    """The two models of one file, or what one file says of its model against a baseline."""
    baseline, model = _generator(source, 1), _generator(source, 2)

    def parse(row: Row) -> tuple[str, Key, Judgment] | None:
        for number, name in ((1, baseline), (2, model)):
            if _text(row, f"generator_{number}") not in (None, "", name):
                raise DataError(
                    f"output_{number} is of {row[f'generator_{number}']}, before of {name}. Keep one a file."
                )
        annotator = _text(row, "annotator") or ""
        return (annotator, _key(row), _judgment(row)) if intake.metric in (None, annotator) else None

    shelves = gather(source, intake, parse, lenient=True)
    if len(shelves) > 1:
        raise DataError(f"{source.path}: holds several annotators. Choose one with --metric: {', '.join(shelves)}.")
    if not shelves and intake.metric is not None:
        there = sorted({str(row.get("annotator")) for row in source.rows})
        raise DataError(f"{source.path}: --metric {intake.metric}: no such annotator. {choose(intake.metric, there)}")
    annotator, shelf = next(iter(shelves.items()), ("", Shelf[Judgment](source, "error")))
    graded = {"": f"preference over {baseline}{f' by {annotator}' if annotator else ''}"}
    items = shelf.taken()
    if source.alone:
        files = (source.path,)
        return Judged(baseline, model, "score", items, files, shelf.duplicates, graded=graded, notes=(ONE_ORDER,))
    entries = {key: Entry(item.new, item.prompt, item.categories) for key, item in items.items()}
    return Run(model, "score", entries, (source.path,), shelf.duplicates, graded, notes=(ONE_ORDER,))


def _judgment(row: Row) -> Judgment:
    share = _preferred(row.get("preference"))
    error = None if share is not None else "the annotation failed"
    old = Answer(None if share is None else 1.0 - share, _text(row, "output_1"), error)
    new = Answer(share, _text(row, "output_2"), error, rationale=_rationale(row.get("raw_completion")))
    dataset = _text(row, "dataset")
    return Judgment(old, new, _text(row, "instruction"), (dataset,) if dataset else ())


def _preferred(preference: object) -> float | None:
    """The probability that output_2 is better: 2 is sure, 1 sure it is not, 1.5 and the older 0 a draw."""
    if preference is None or (isinstance(preference, float) and math.isnan(preference)):
        return None
    if isinstance(preference, int | float) and not isinstance(preference, bool):
        if preference == 0:
            return 0.5
        if 1 <= preference <= 2:
            return float(preference) - 1.0
    raise DataError(f"'preference' is {shown(preference)}; expected a number from 1 to 2, or null if it failed.")


def _rationale(said: object) -> str | None:
    """Why the annotator preferred what it did, where it said so: in words, or as the explanation in its answer."""
    if isinstance(said, dict):
        told = (rationale_of(value) for key, value in said.items() if "explanation" in key)
        return next(filter(None, told), None)
    if not isinstance(said, str) or len(said.split()) < 2 or said.lstrip().startswith("["):
        return None  # one letter, or a ranking
    try:
        document = lenient_json(said.encode("utf-8", "surrogatepass"))
    except ValueError:
        return said
    return _rationale(document) if isinstance(document, dict) else None


def _key(row: Row) -> Key:
    instruction = row.get("instruction")
    if not isinstance(instruction, str):
        raise DataError(f"'instruction' is {shown(instruction)}; expected text.")
    return hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16], 0


def _generator(source: Source, number: int) -> str:
    names = {name for row in source.rows if (name := _text(row, f"generator_{number}"))}
    if len(names) > 1:
        several = ", ".join(sorted(names))
        raise DataError(f"{source.path}: output_{number} is of several models: {several}. Keep one a file.")
    return names.pop() if names else f"output_{number}"


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) else None
