"""Preference data in the shapes people have it, recognised by looking."""

import gzip
import json
from pathlib import Path

import pytest

from flipguard.errors import DataError
from flipguard.train.formats import FORMATS, MalformedError, recognise
from flipguard.train.formats.hh import turns

ASK, YES, NO = ({"role": who, "content": said} for who, said in (("user", "q"), ("assistant", "y"), ("assistant", "n")))
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "preferences"

ROWS = {
    "hh": {"chosen": "\n\nHuman: q\n\nAssistant: y", "rejected": "\n\nHuman: q\n\nAssistant: n"},
    "ultrafeedback": {
        "prompt": "q", "prompt_id": "p1", "chosen": [ASK, YES], "rejected": [ASK, NO], "messages": [ASK, YES],
        "score_chosen": 8.0, "score_rejected": 5.0,
    },
    "summarize_from_feedback": {
        "info": {"id": "t3", "post": "long", "title": "t", "subreddit": "s", "article": None},
        "summaries": [{"text": "n ", "policy": "a"}, {"text": " y", "policy": "b"}], "choice": 1,
    },
    "cvalues": {"prompt": "q", "pos_resp": "y", "neg_resp": "n", "pos_type": "a", "neg_type": "b"},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "y"}, "rejected": {"from": "gpt", "value": "n"},
    },
    "pairs": {"prompt": "q", "chosen": "y", "rejected": "n"},
    "unpaired": {"prompt": "q", "completion": "y", "label": True},
    "supervised": {"messages": [ASK, YES]},
    "prompts": {"prompt": "q", "target": "y"},
}  # fmt: skip
KINDS = {item.name: item.kind for item in FORMATS}


def read(row, name):
    return next(item for item in FORMATS if item.name == name).read(row)


@pytest.mark.parametrize("name", ROWS)
def test_every_format_is_recognised_by_its_columns_and_values(name):
    assert {item.name for item in FORMATS} == ROWS.keys()
    assert recognise([ROWS[name]], KINDS[name], "auto", "d").name == name


@pytest.mark.parametrize(
    ("name", "prompt", "completions"),
    [
        ("hh", "\n\nHuman: q\n\nAssistant:", (" y", " n")),
        ("ultrafeedback", [ASK], ([YES], [NO])),
        ("summarize_from_feedback", "SUBREDDIT: r/s\nTITLE: t\nPOST: long\nTL;DR:", (" y", " n")),
        ("cvalues", "q", ("y", "n")),
        ("sharegpt", [ASK], ([YES], [NO])),
        ("pairs", "q", ("y", "n")),
        ("unpaired", "q", ("y",)),
        ("supervised", [ASK], ([YES],)),
    ],
)
def test_every_format_gives_a_prompt_and_its_completions(name, prompt, completions):
    example = read(ROWS[name], name)
    assert (example.prompt, example.completions) == (prompt, completions)


def test_pairs_without_a_prompt_share_it_as_trl_has_it():
    chats = read({"chosen": [ASK, YES], "rejected": [ASK, NO]}, "pairs")
    assert (chats.prompt, chats.completions, chats.differing) == ([ASK], ([YES], [NO]), False)
    texts = read({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "pairs")
    assert (texts.prompt, texts.completions) == ("The sky is", (" blue.", " green."))


def test_conversations_that_part_before_their_last_answers_differ():
    other = {"role": "user", "content": "other"}
    example = read({"chosen": [ASK, YES, ASK, YES], "rejected": [ASK, YES, other, NO]}, "pairs")
    assert example.differing
    assert (example.prompt, example.completions) == ([ASK, YES], ([ASK, YES], [other, NO]))


def test_a_dialogue_that_goes_on_after_the_shared_prompt_differs():
    longer = ROWS["hh"]["chosen"] + "\n\nHuman: more\n\nAssistant: z"
    example = read({"chosen": longer, "rejected": ROWS["hh"]["rejected"]}, "hh")
    assert example.differing
    assert example.prompt + example.completions[0] == longer


def test_the_prompt_of_a_dialogue_keeps_answers_that_begin_alike_whole():
    row = {"chosen": "\n\nHuman: q\n\nAssistant: yes, a", "rejected": "\n\nHuman: q\n\nAssistant: yes, b"}
    assert read(row, "hh").completions == (" yes, a", " yes, b")


def test_turns_of_a_dialogue_are_those_of_both_speakers():
    said = [("user", "q"), ("assistant", "a\n\nb"), ("user", "r"), ("assistant", "")]
    dialogue = "\n\nHuman: q\n\nAssistant: a\n\nb\n\nHuman: r\n\nAssistant:"
    assert [(turn["role"], turn["content"]) for turn in turns(dialogue)] == said


def test_news_articles_are_left_out_as_in_pro_and_ties_are_told():
    row = ROWS["summarize_from_feedback"]
    assert read(row | {"info": {"article": "news", "post": None}}, "summarize_from_feedback") is None
    assert read(ROWS["ultrafeedback"] | {"score_rejected": 8.0}, "ultrafeedback").tied
    assert not read(ROWS["ultrafeedback"], "ultrafeedback").tied


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("ultrafeedback", {"prompt": "something else"}, "'prompt' is not what the user says in 'chosen'"),
        ("summarize_from_feedback", {"choice": 2}, "'choice' must be 0 or 1, found 2"),
        ("summarize_from_feedback", {"summaries": [{"text": "a"}]}, "must be two objects with a text"),
        ("cvalues", {"pos_resp": None}, "'pos_resp' must be a text, found None"),
        ("sharegpt", {"chosen": {"from": "robot", "value": "x"}}, "without from"),
        ("pairs", {"chosen": [YES]}, "must all be texts, or all lists of messages"),
        ("unpaired", {"label": 1}, "'label' must be true"),
        ("supervised", {"messages": [ASK]}, "at least two messages"),
    ],
)
def test_a_row_that_is_not_what_its_format_says_is_malformed(name, change, says):
    with pytest.raises(MalformedError, match=says):
        read(ROWS[name] | change, name)


def test_a_named_format_must_serve_the_algorithm():
    with pytest.raises(DataError, match=r"the format unpaired has no rows for this algorithm. Choose one of: hh, "):
        recognise([], "pairs", "unpaired", "d")


@pytest.mark.parametrize(
    ("name", "form", "rows"),
    [("llamafactory_dpo_zh_demo", "sharegpt", 300), ("cvalues_comparison_tiny_zh", "cvalues", 8)],
)
def test_real_files_are_recognised_and_read_to_their_end(name, form, rows):
    path = REAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("the real data are not here")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        content = [json.loads(line) for line in file]
    found = recognise(content[:10], "pairs", "auto", str(path))
    assert (found.name, len([found.read(row) for row in content])) == (form, rows)
