"""FastChat's MT-Bench: `*_pair.jsonl`, where a judge chose the better of two answers, in both orders.

`g1_winner` is of the game that showed model_1 first, `g2_winner` of the one that showed it second. Nothing in the file
says which model came before: `FILE#OLD`, or `FILE#OLD FILE#NEW` where it holds more than two.
"""

from __future__ import annotations

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.importers.mt_bench import cluster_of, judge_of, key_of, named
from flipguard.evaluate.importers.mt_bench_questions import Questions
from flipguard.evaluate.intake import Intake, gather
from flipguard.evaluate.runs import Judged, Judgment, Key
from flipguard.evaluate.source import Source
from flipguard.records import Row, Verdict, Winner

GAMES = ("g1", "g2")
WINNERS = ("model_1", "model_2", "tie", "error")


def recognise(source: Source) -> str | None:
    """Rows have two models and two winners."""
    if not source.rows:
        return source.why_no_rows()
    keys = {"model_1", "model_2", "g1_winner"}
    return None if any(keys <= row.keys() for row in source.rows) else "no row has 'model_1', 'model_2', 'g1_winner'"


def read(source: Source, intake: Intake) -> Judged:
    """The verdicts between one old and one new model."""
    if source.part is None:
        names = sorted({str(row[key]) for row in source.rows for key in ("model_1", "model_2") if key in row})
        if not names:
            raise DataError(f"{source.path}: is not of the format mt_bench_pairs: {recognise(source)}.")
        raise DataError(
            f"{source.path}: judges {' against '.join(names)}. Which one is the old model? Write "
            f"{source.path.name}#{names[0]}, or {source.path.name}#OLD {source.path.name}#NEW."
        )
    old, questions = source.part, Questions(source.path, intake)

    def parse(row: Row) -> tuple[str, Key, Judgment] | None:
        models = [named(row, "model_1"), named(row, "model_2")]
        judge = judge_of(row)
        if old not in models or intake.metric not in (None, judge):
            return None
        new = models[1 - models.index(old)]
        if source.partner not in (None, new):
            return None
        return f"{new}\n{judge}", key_of(row), _judgment(row, (old, new), questions)

    shelves = gather(source, intake, parse, lenient=True)
    pairs = [name.partition("\n")[::2] for name in shelves]
    news, judges = sorted({new for new, _ in pairs}), sorted({judge for _, judge in pairs})
    if len(news) > 1:
        raise DataError(f"{source.path}: judges {old} against several: {', '.join(news)}. Name two: FILE#OLD FILE#NEW.")
    if len(judges) > 1:
        raise DataError(f"{source.path}: holds several judges. Choose one with --metric: {', '.join(judges)}.")
    if not shelves:
        there = sorted({str(row.get(key)) for row in source.rows for key in ("model_1", "model_2")})
        _refuse_strangers(source, old, there)
        asked = " against ".join(name for name in (old, source.partner) if name)
        raise DataError(f"{source.path}: holds no judgment of {shown(asked)}. {choose(old, there)}")
    shelf = next(iter(shelves.values()))
    questions.check()
    files = (source.path, *questions.files)
    return Judged(old, news[0], "verdicts", shelf.taken(), files, shelf.duplicates, graded={"": judges[0]})


def _refuse_strangers(source: Source, old: str, there: list[str]) -> None:
    """Say so where two models were judged against a baseline but never against each other."""
    if source.partner in there and old in there and source.partner != old:
        met = [{str(row.get("model_1")), str(row.get("model_2"))} for row in source.rows]
        rivals = sorted({name for pair in met if old in pair for name in pair - {old}})
        raise DataError(
            f"{source.path}: {old} and {source.partner} were never judged against each other; {old} was against "
            f"{', '.join(rivals)}. Choose one of these."
        )


def _judgment(row: Row, models: tuple[str, str], questions: Questions) -> Judgment:
    first_is_old = row["model_1"] == models[0]
    verdicts = tuple(_verdict(row, game, first_is_old) for game in GAMES if f"{game}_winner" in row)
    old, new = (Answer(completion=questions.answer(row, model)) for model in models)
    return Judgment(old, new, questions.prompt(row), questions.categories(row), cluster_of(row), verdicts)


def _verdict(row: Row, game: str, first_is_old: bool) -> Verdict:  # noqa: FBT001 (a fact of the row)
    said = row[f"{game}_winner"]
    if said not in WINNERS:
        raise DataError(f"'{game}_winner' is {shown(said)}. {choose(said, WINNERS)}")
    sides: dict[str, Winner] = {"tie": "tie", "error": "invalid"}
    sides |= {"model_1": "old", "model_2": "new"} if first_is_old else {"model_1": "new", "model_2": "old"}
    verdict: Verdict = {
        "order": "old_first" if first_is_old == (game == "g1") else "new_first",
        "winner": sides[said],
    }
    reason = row.get(f"{game}_judgment")
    if isinstance(reason, str):
        verdict["reason"] = reason
    return verdict
