"""Generic scores: rows `{"id", "score": number|null}` or `{"id", "correct": bool|null}`, one file per model.

JSONL, a JSON array, CSV or Parquet. Where rows have both keys, `correct` counts: it is the decision, `score` the
evidence; `--metric NAME` takes another key, a number or true and false. Where rows name several models in `model`,
`FILE#MODEL` takes those of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.fieldcolumns import Block
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.pieces import collect
from flipguard.evaluate.rows import Rows
from flipguard.evaluate.runs import Metric, Run
from flipguard.evaluate.source import Source
from flipguard.records import Row

LARGE = 1 << 22  # bytes from which on a file has very many rows
METRICS: tuple[Metric, ...] = ("correct", "score")


def recognise(source: Source) -> str | None:
    """Scores have `score` or `correct` at the top of a row."""
    if not source.rows:
        return source.why_no_rows()
    if any(metric in row for row in source.rows for metric in METRICS):
        return None
    return f"no row has 'score' or 'correct'; the first has {', '.join(shown(key) for key in list(source.rows[0])[:8])}"


@dataclass(frozen=True, slots=True)
class Taking:
    """How a row is taken: of the model `part` only, where that is named; graded by `name`, which is a `metric`.

    It is one of `many`, or of some thousands at most.
    """

    part: str | None
    name: str
    metric: Metric
    many: bool

    def __call__(self, rows: Sequence[Row], numbers: Sequence[int], places: Sequence[int]) -> dict[str, Rows]:
        """The rows of each model."""
        block = Block(rows)
        if self.part is None and "model" not in block.names:
            return {"": self._taken(block, numbers, places)}
        models = list(map(_model, rows))
        return {
            model: self._chosen([model == other for other in models], rows, numbers, places)
            for model in dict.fromkeys(models)
            if self.part is None or self.part == model
        }

    def _chosen(
        self, chosen: Sequence[bool], rows: Sequence[Row], numbers: Sequence[int], places: Sequence[int]
    ) -> Rows:
        numbers, places = (list(compress(column, chosen)) for column in (numbers, places))
        return self._taken(Block(list(compress(rows, chosen))), numbers, places)

    def _taken(self, block: Block, numbers: Sequence[int], places: Sequence[int]) -> Rows:
        if self.name == self.metric:
            return Rows.of(block, block, self.metric, numbers, places, many=self.many)
        graded = Block([_renamed(row, self.name, self.metric) for row in block.rows])
        return Rows.of(block, graded, self.metric, numbers, places, many=self.many)


def read(source: Source, intake: Intake) -> Run:
    """One model's graded answers."""
    name, metric = _metric(source, intake.metric)
    models = collect(source, intake, Taking(source.part, name, metric, source.path.stat().st_size >= LARGE))
    if len(models) > 1:
        names = [model or "(none)" for model in models]
        raise DataError(
            f"{source.path}: holds several models: {', '.join(names)}. Name the old and the new one: "
            f"{source.path.name}#{names[0]} {source.path.name}#{names[1]}."
        )
    if not models and source.part is not None:
        there = sorted({model for row in source.rows if (model := _model(row))})
        raise DataError(f"{source.path}: no row has the model {shown(source.part)}. {_models(source.part, there)}")
    rows = next(iter(models.values()), None) or Rows()
    entries, duplicates = rows.columns(source, intake.duplicates)
    graded = {"": name} if name != metric else {}
    return Run(source.part or _name(source), metric, entries, (source.path,), duplicates, graded)


def _metric(source: Source, wanted: str | None) -> tuple[str, Metric]:
    """The key that holds the grade, and what the grade is."""
    if wanted is None:
        graded = next((row for row in source.rows if "correct" in row or "score" in row), {})
        return ("correct", "correct") if "correct" in graded else ("score", "score")
    for metric in METRICS:
        if wanted == metric:
            return metric, metric
    values = [row[wanted] for row in source.rows if _is_grade(wanted, row.get(wanted))]
    if not values or not isinstance(values[0], bool | int | float):
        keys = dict.fromkeys(key for row in source.rows for key, value in row.items() if _is_grade(key, value))
        choices = choose(wanted, keys or METRICS)
        raise DataError(f"{source.path}: --metric {wanted}: no number, true or false of this name. {choices}")
    return wanted, "correct" if isinstance(values[0], bool) else "score"


def _is_grade(key: str, value: object) -> bool:
    return isinstance(value, bool | int | float) and key not in ("id", "repeat")


def _renamed(row: Row, name: str, metric: Metric) -> Row:
    if name not in row:
        raise DataError(f"'{name}' is missing; null says that an answer was not graded.")
    value = row[name]
    fits = isinstance(value, bool) if metric == "correct" else isinstance(value, int | float)
    if value is not None and (not fits or (metric == "score" and isinstance(value, bool))):
        expected = "true or false" if metric == "correct" else "a number"
        raise DataError(f"'{name}' is {shown(value)}; expected {expected} as in the first row, or null.")
    return {**row, metric: value}


def _model(row: Row) -> str:
    model = row.get("model")
    return model if isinstance(model, str) else ""


def _models(wanted: str, there: list[str]) -> str:
    return choose(wanted, there) if there else "Its rows name none in 'model'; leave '#' and it away."


def _name(source: Source) -> str:
    return (_model(source.rows[0]) if source.rows else "") or source.stem
