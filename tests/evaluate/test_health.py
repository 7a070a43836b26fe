"""What a sound judge never does: grade identical answers apart, or say another thing when asked again."""

from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.health import health


def scored(old, new, *, texts=("same", "same"), outcome="tie"):
    return Pair(0, 0, Answer(old, texts[0]), Answer(new, texts[1]), outcome)


def asked(*verdicts, texts=("a", "b"), outcome="tie"):
    said = tuple({"order": order, "winner": winner} for order, winner in verdicts)
    return Pair(0, 0, Answer(None, texts[0]), Answer(None, texts[1]), outcome, verdicts=said)


def test_identical_answers_with_other_scores_are_counted():
    told = health([scored(1.0, 1.0), scored(1.0, 0.5), scored(1.0, 0.5, texts=("a", "b"))])
    assert (told.identical.k, told.identical.n, told.retest) == (1, 2, None)


def test_identical_answers_of_which_one_was_called_better_are_counted():
    tie = [("old_first", "tie"), ("new_first", "tie")]
    rows = [asked(*tie, texts=("x", "x")), asked(("old_first", "old"), ("new_first", "new"), texts=("x", "x"))]
    assert (health(rows).identical.k, health(rows).identical.n) == (1, 2)


def test_a_judge_that_says_another_thing_when_asked_again_is_counted():
    rows = [
        asked(("old_first", "old"), ("old_first", "old")),
        asked(("old_first", "old"), ("old_first", "tie"), ("new_first", "old")),
        asked(("old_first", "old"), ("new_first", "new")),
        asked(("old_first", "old"), ("old_first", "invalid"), outcome="invalid"),
    ]
    told = health(rows)
    assert (told.retest.k, told.retest.n, told.identical) == (1, 2, None)


def test_where_the_files_show_nothing_nothing_is_said():
    answers_without_text = Pair(0, 0, Answer(1.0), Answer(1.0), "tie")
    failed = scored(None, None, outcome="invalid")
    assert health([answers_without_text, failed, asked(("old_first", "old"))]) is None
    assert health([]) is None
