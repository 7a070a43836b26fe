"""Rows taken together give what each gives alone: the same columns, the same complaints, whatever stands in them."""

from itertools import product

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.errors import DataError
from flipguard.evaluate import fieldcolumns, fields
from flipguard.evaluate.fieldcolumns import Block
from flipguard.evaluate.forms import fingerprints, measured
from flipguard.evaluate.importers.scores import Taking
from flipguard.evaluate.pieces import Piece, read_piece
from flipguard.evaluate.refusing import refuses
from flipguard.evaluate.vectors import noticed

BITS = (
    *(
        "I can't help with that. ",
        "I’m unable to do this. ",
        "我无法提供这方面的信息。",
        "<think>no</think>",
        "not ",
        "Sure! ",
    ),
    *(
        "```",
        "{",
        "[1]",
        '"',
        " ",
        "\n",
        "\t",
        "\x1c",
        "\x85",
        "\xa0",
        "\u2003",
        "\u3000",
        "，",
        "。",
        "a",
        "é",
        "—",
        "あ",
    ),
    *("漢字", "한글", "\u3105", "\ud7b0", "\U0001f600", "\u212a", "word " * 60),
)
texts = st.lists(st.sampled_from(BITS), max_size=12).map("".join)
anything = st.sampled_from([None, "", "x", "a", 0, 1, -1, 1.5, True, False, [], ["a", "a"], [1], {}, {"role": "user"}])
rows = st.fixed_dictionaries(
    {"id": st.integers(0, 99) | st.text(max_size=2) | anything, "score": st.floats(-2, 2) | anything},
    optional={
        "completion": texts | anything,
        "prompt": texts | st.just([{"role": "user", "content": "hi"}]) | anything,
        "repeat": st.integers(0, 2) | anything,
        "error": anything,
        "finish_reason": st.sampled_from(["stop", "length", "error"]) | anything,
        "category": st.sampled_from(["a", "b"]) | anything,
        "cluster": st.sampled_from(["a", "b"]) | anything,
        "reference": anything,
        "model": st.sampled_from(["", "m", "n"]) | anything,
    },
)
COLUMNS = (
    (fieldcolumns.completions, fields.completion_of),
    (fieldcolumns.prompts, fields.prompt_of),
    (fieldcolumns.references, fields.reference_of),
    (fieldcolumns.clusters, fields.cluster_of),
    (fieldcolumns.finish_reasons, fields.finish_reason_of),
    (fieldcolumns.categories, fields.categories_of),
)
SPOILT = (b"", b" ", b"{", b"[1]", b"null", b'{"id": 1, "score": NaN}', b'{"id": 1, "score": 1e999}', b"\xff", b"{}")
lines = st.one_of(rows.map(orjson.dumps), rows.map(orjson.dumps), st.sampled_from(SPOILT))


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, min_size=1, max_size=20), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans())
def test_rows_taken_together_are_those_taken_one_by_one(tmp_path_factory, lines, end, mark, whole):
    path = tmp_path_factory.getbasetemp() / "together.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + end.join(lines) + end * whole)
    found = []
    for together, many in product((256, 3, 1), (False, True)):
        piece = Piece(path, 0, path.stat().st_size, Taking(None, "score", "score", many), len(lines), together)
        found.append(read_piece(piece))
    assert all(other == found[0] for other in found)


def or_error(ask):
    try:
        return ask()
    except DataError:
        return "a row is bad"


@settings(max_examples=300)
@given(st.lists(rows, min_size=1, max_size=3))
def test_columns_are_what_each_row_says(rows):
    keys = or_error(lambda: list(zip(*fieldcolumns.keys(Block(rows)), strict=True)))
    assert keys == or_error(lambda: [fields.key_of(row) for row in rows])
    for metric in ("score", "correct"):
        graded = [{**row, "correct": row["score"]} for row in rows]
        grades = or_error(lambda: list(zip(*fieldcolumns.grades(Block(graded), metric), strict=True)))  # noqa: B023
        assert grades == or_error(lambda: [fields.grade_of(row, metric) for row in graded])  # noqa: B023
    for column, of_row in COLUMNS:
        assert or_error(lambda: column(Block(rows))) == or_error(lambda: list(map(of_row, rows)))  # noqa: B023


REFUSALS = (
    *("I can't help with that.", "I cannot say.", "I can not tell you.", "I will not do it.", "I do not wish to help."),
    *("We should not help.", "I am not able to help.", "I would not help.", "I'm unable to.", "I must DECLINE to."),
    *("It is not something I can do.", "I’d prefer not to; I can’t.", "That is too hard for us to answer.", "我拒绝。"),
    *("I refuse to answer.", "Your request violates it.", "This is against my rules.", "I'm uncomfortable with it."),
    *(
        "I would rather not.",
        "This question is inappropriate.",
        "这个问题违反规定。",
        "我没有办法帮助您。",
        "我无法回答。",
    ),
)


@given(st.lists(texts | st.sampled_from(REFUSALS), max_size=8))
def test_no_answer_that_deserves_a_mark_is_passed_over(many):
    seen = set(noticed(many))
    for row, text in enumerate(many):
        assert row in seen or not (refuses(text) or "```" in text or text.lstrip()[:1] in ("", "{", "["))


def test_ordinary_answers_are_not_noticed():
    assert noticed(["The cat sat on the mat.", "水是湿的", "Fetching nothing, they sang."]) == []


@given(st.lists(st.tuples(st.none() | texts, st.none() | st.just("x"), st.sampled_from([None, "", "stop", "length"]))))
def test_forms_of_many_answers_are_those_of_each(answers):
    whole, vast = (measured(*([answer[place] for answer in answers] for place in range(3)), many=m) for m in (0, 1))
    alone = [measured([text], [error], [reason]) for text, error, reason in answers]
    assert whole == vast
    assert list(whole.lengths) == [form.lengths[0] for form in alone]
    assert list(whole.marks) == [form.marks[0] for form in alone]
    assert list(whole.prints) == fingerprints([text for text, _, _ in answers]) == [form.prints[0] for form in alone]
