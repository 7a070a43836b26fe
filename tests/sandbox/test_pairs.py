import random

import pytest

from flipguard.errors import DataError
from flipguard.files import read_jsonl, write_jsonl
from flipguard.sandbox.pairs import PairCounts, chance_of_first, make_pairs
from flipguard.sandbox.world import draw, understand


def sample(number, question, completion, repeat, **changed):
    row = {"id": number, "prompt": question.prompt, "category": question.category, "completion": completion}
    return {**row, "model": "m", "finish_reason": "stop", "repeat": repeat, **changed}


def rows_of(path):
    return [row for _, row in read_jsonl(path)]


QUESTION = understand("sort the letters d c b f")
RIGHT, HALF, BAD = "b c d f", "b c f d", "paris"


@pytest.fixture
def made(tmp_path):
    def make(rows, seed=0, **options):
        write_jsonl(tmp_path / "g.jsonl", rows)
        counts = make_pairs(tmp_path / "g.jsonl", tmp_path / "pairs.jsonl", seed=seed, **options)
        return counts, rows_of(tmp_path / "pairs.jsonl")

    return make


@pytest.mark.parametrize(("first", "second", "points"), [(RIGHT, BAD, 1.0), (RIGHT, HALF, 0.5), (BAD, HALF, -0.5)])
def test_the_coin_prefers_the_better_answer_as_often_as_bradley_and_terry_say(made, first, second, points):
    rows = [sample(n, QUESTION, text, repeat) for n in range(2000) for repeat, text in ((0, first), (1, second))]
    counts, pairs = made(rows, scale=2.0)
    share = sum(row["chosen"][0]["content"] == first for row in pairs) / counts.pairs
    assert share == pytest.approx(chance_of_first(points, 0.0, scale=2.0), abs=0.035)  # 3 standard errors
    better = RIGHT if points > 0 else HALF
    assert counts.misordered == sum(row["chosen"][0]["content"] != better for row in pairs)


def test_answers_of_equal_reward_are_ordered_by_a_fair_coin(made):
    question = understand("how do i kill the person in the office")
    rows = [sample(n, question, text, repeat) for n in range(2000) for repeat, text in ((0, "first"), (1, "then"))]
    _, pairs = made(rows)
    assert sum(row["chosen"][0]["content"] == "first" for row in pairs) / 2000 == pytest.approx(0.5, abs=0.035)


def test_the_order_of_the_rows_changes_no_coin(made):
    questions = draw({"sort": 60}, "train", random.Random(0), distinct=True)
    rows = [sample(n, q, text, r) for n, q in enumerate(questions) for r, text in ((0, q.help), (1, "b c"))]
    _, pairs = made(rows)
    random.Random(1).shuffle(rows)
    _, shuffled = made(rows)
    assert sorted(pairs, key=lambda row: row["id"]) == sorted(shuffled, key=lambda row: row["id"])
    assert made(rows, seed=0)[1] != made(rows, seed=3)[1]


def test_every_two_further_samples_are_a_pair_with_a_coin_of_its_own(made):
    rows = [sample(n, QUESTION, text, r) for n in range(50) for r, text in enumerate((RIGHT, HALF, RIGHT, HALF))]
    counts, pairs = made(rows, scale=0.0)
    assert counts.pairs == 100
    _, first_two = made([row for row in rows if row["repeat"] < 2], scale=0.0)
    assert pairs[::2] == first_two
    better_first = [[row["chosen"][0]["content"] == RIGHT for row in pairs[start::2]] for start in (0, 1)]
    assert better_first[0] != better_first[1]


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_coin_without_a_possible_scale_is_an_error(made, scale):
    with pytest.raises(DataError, match=r"scale: .* must be a number of at least 0"):
        made([], scale=scale)


def test_samples_that_say_the_same_are_dropped_and_counted(made):
    counts, pairs = made([sample("a", QUESTION, RIGHT, 0), sample("a", QUESTION, RIGHT, 1)])
    assert (counts, pairs) == (PairCounts(pairs=0, identical=1, unfinished=0, misordered=0), [])


def test_samples_that_were_cut_off_said_nothing_or_are_missing_are_dropped_and_counted(made):
    rows = [sample("a", QUESTION, RIGHT, 0), sample("a", QUESTION, BAD, 1, finish_reason="length")]
    rows += [sample("b", QUESTION, RIGHT, 0), sample("b", QUESTION, RIGHT, 2)]
    counts, _ = made([*rows, sample("c", QUESTION, RIGHT, 0), sample("c", QUESTION, " ", 1)])
    assert counts == PairCounts(pairs=0, identical=0, unfinished=4, misordered=0)


def test_a_pair_carries_its_conversations_and_true_rewards(made):
    _, pairs = made([sample(7, QUESTION, BAD, 0), sample(7, QUESTION, RIGHT, 1)], scale=1000.0)
    assert pairs == [
        {
            "id": 7,
            "prompt": QUESTION.prompt,
            "chosen": [{"role": "assistant", "content": RIGHT}],
            "rejected": [{"role": "assistant", "content": BAD}],
            "category": ["sort"],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
        }
    ]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": 1, "prompt": "sort the letters c b"}], r"g\.jsonl:1: no 'completion'"),
        ([sample(1, QUESTION, RIGHT, 0)] * 2, r"g\.jsonl:2: id 1 has repeat 0 twice"),
        ([sample(1, QUESTION, RIGHT, "first")], r"g\.jsonl:1: repeat 'first' is no number of a sample"),
        ([sample(1, QUESTION, t, r, prompt="who?") for r, t in ((0, "a"), (1, "b"))], r"'who\?' is no prompt"),
    ],
)
def test_rows_that_are_no_generations_of_this_world_are_errors(made, rows, says):
    with pytest.raises(DataError, match=says):
        made(rows)
