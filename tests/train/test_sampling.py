"""Splits, weights and faults: which rows are trained on, and that every other one is counted."""

import json
from random import Random

import numpy as np
import pytest

from flipguard.errors import DataError, RecipeError
from flipguard.train.data import load_completions, load_pairs, load_unpaired
from flipguard.train.dataspec import DataSpec
from flipguard.train.recipe import load_recipe

COUNT = 23


def pair(number, **changes):
    row = {"id": number, "prompt": f"w{number}", "chosen": f" w1 w{number}", "rejected": f" w2 w3 w{number}"}
    return row | changes


@pytest.fixture
def written(tmp_path):
    def write(rows, name="d"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def load(tokenizer, train, read=load_pairs, **said):
    spec = DataSpec(train=train, **said)
    return read(spec.train, spec, tokenizer, None)


def ids(data):
    return [row.id for row in data.rows]


def deepspeed_chat(count, parts, take, seed):
    """`get_raw_dataset_split_index` of DeepSpeed-Chat, said again in its own steps."""
    shares = [part / sum(parts) for part in parts]
    ends = [0]
    for number, share in enumerate(shares):
        ends.append(ends[number] + round(share * float(count)))
    beyond = ends[-1] - count
    for number in range(1, len(ends)):
        ends[number] -= beyond
    shuffled = np.arange(start=0, stop=count, step=1, dtype=np.uint32)
    np.random.RandomState(seed=seed).shuffle(shuffled)
    return shuffled[ends[take - 1] : ends[take]].tolist()


@pytest.mark.parametrize("take", [1, 2, 3])
def test_a_split_is_that_of_deepspeed_chat(written, tokenizer, take):
    source = written(map(pair, range(COUNT)))
    data = load(tokenizer, source, split={"parts": [2, 4, 4], "take": take})
    assert ids(data) == deepspeed_chat(COUNT, (2, 4, 4), take, 1234)
    assert data.left_out == {"of other parts": COUNT - len(data.rows)}


def test_the_three_parts_are_all_rows_once_and_halves_of_a_pair_stay_together(written, tokenizer):
    source = written(map(pair, range(COUNT)))
    parts = [load(tokenizer, source, split={"parts": [2, 4, 4], "take": take}) for take in (1, 2, 3)]
    assert sorted(number for part in parts for number in ids(part)) == list(range(COUNT))
    halves = load(tokenizer, source, load_unpaired, split={"parts": [2, 4, 4], "take": 1})
    assert ids(halves) == [number for number in ids(parts[0]) for _ in range(2)]
    assert [row.label for row in halves.rows][:2] == [True, False]


def test_rows_held_out_are_those_of_pro(written, tokenizer):
    source = written(map(pair, range(COUNT)))
    drawn = Random(42).sample(range(COUNT), 5)
    rest = load(tokenizer, {"path": source, "hold_out": {"rows": 5}})
    held = load(tokenizer, {"path": source, "hold_out": {"rows": 5, "take": "held_out"}})
    assert ids(held) == sorted(drawn)
    assert sorted(ids(rest) + ids(held)) == list(range(COUNT))
    with pytest.raises(DataError, match="hold_out: 23 of 23 rows leaves none"):
        load(tokenizer, {"path": source, "hold_out": {"rows": COUNT}})


def test_weights_say_how_often_a_row_comes(written, tokenizer):
    few, many = written(map(pair, range(4)), "few"), written(map(pair, range(10, 30)), "many")
    train = [{"path": few, "weight": 2.5}, {"path": many, "weight": 0.25}]
    data = load(tokenizer, train)
    assert sorted(ids(data)[:8]) == sorted([0, 1, 2, 3] * 2)
    assert (len(ids(data)[8:10]), set(ids(data)[8:10]) <= set(range(4))) == (2, True)
    assert (len(ids(data)[10:]), set(ids(data)[10:]) <= set(range(10, 30))) == (5, True)
    assert data.left_out == {"not drawn": 15}
    assert ids(load(tokenizer, train)) == ids(data)
    assert ids(load(tokenizer, train, seed=7)) != ids(data)


def test_rows_are_chosen_by_their_columns(written, tokenizer):
    source = written([pair(number, split="valid1" if number % 2 else "valid2") for number in range(6)])
    data = load(tokenizer, {"path": source, "where": {"split": "valid1"}})
    assert ids(data) == [1, 3, 5]
    assert data.left_out == {"not asked for": 3}


FAULTY = {
    "empty_prompt": {"prompt": " "},
    "empty_reply": {"chosen": " "},
    "equal_replies": {"rejected": " w1 w9"},
    "over_long": {"chosen": "w1 " * 9},
    "duplicate": pair(0),
    "contradiction": {"prompt": "w0", "chosen": " w2 w3 w0", "rejected": " w1 w0"},
    "role_marker": {"chosen": "w5\nHuman: w6"},
    "displacement_risk": {"chosen": " w1 w2 w3", "rejected": " w1 w2 w4"},
}
DEFAULT = {"empty_prompt": 1, "empty_reply": 1, "equal_replies": 1, "over_long": 1}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_is_left_out_kept_or_stops_as_the_recipe_says(written, tokenizer, fault):
    rows = [pair(0), pair(9, **FAULTY[fault]), pair(1, chosen=" w7 w7 w7")]
    source = written(rows)
    limits = {"max_completion_tokens": 8, "displacement_distance": 0.25 if fault == "displacement_risk" else 0.0}
    bad = {"contradiction": 2}.get(fault, 1)
    left = load(tokenizer, source, **limits)
    assert len(left.rows) == 3 - DEFAULT.get(fault, 0)
    out = load(tokenizer, source, **limits, faults={fault: "leave_out"})
    assert (len(out.rows), out.left_out.total()) == (3 - bad, bad)
    with pytest.raises(DataError, match=rf"let data\.faults\.{fault} be leave_out"):
        load(tokenizer, source, **limits, faults={fault: "stop"})
    if fault != "over_long":
        assert len(load(tokenizer, source, **limits, faults={fault: "keep"}).rows) == 3


def test_malformed_rows_stop_unless_they_shall_be_left_out(written, tokenizer):
    source = written([pair(0), pair(1, chosen=None), pair(2), {"prompt": "w1"}])
    with pytest.raises(DataError, match=r"d.jsonl:2: 'chosen' must be .* 1 more such rows; --check-data lists all"):
        load(tokenizer, source)
    data = load(tokenizer, source, faults={"malformed": "leave_out"})
    assert (ids(data), data.left_out) == ([0, 2], {"malformed": 2})


def test_each_row_is_counted_once_whatever_is_wrong_with_it(written, tokenizer):
    source = written([pair(0), pair(1, prompt="", chosen="", rejected="")])
    assert load(tokenizer, source).left_out.total() == 1


def test_texts_become_conversations_where_the_recipe_wants_chats(written, tokenizer):
    hh = {
        "chosen": "\n\nHuman: w1\n\nAssistant: w2\n\nHuman: w3\n\nAssistant: w4",
        "rejected": "\n\nHuman: w1\n\nAssistant: w2\n\nHuman: w3\n\nAssistant: w5",
    }
    for row, prompt in (
        (hh, "<user> w1 <assistant> w2 </s> <user> w3 <assistant>"),
        (pair(1), "<user> w1 <assistant>"),
    ):
        data = load(tokenizer, written([row]), chat=True)
        assert data.chat
        assert tokenizer.decode(data.rows[0].prompt) == prompt
    assert tokenizer.decode(load(tokenizer, written([hh]), chat=True).rows[0].completions[0]) == "w4 </s>"


def test_sources_of_texts_and_of_conversations_do_not_mix(written, tokenizer):
    chat = {"messages": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]}
    sources = [written([{"prompt": "w1", "completion": "w2"}], "a"), written([chat], "b")]
    with pytest.raises(DataError, match=r"b\.jsonl: has conversations, other sources texts"):
        load(tokenizer, sources, load_completions)
    assert len(load(tokenizer, sources, load_completions, chat=True).rows) == 2


def test_a_reward_model_may_say_which_answer_is_better(written, tokenizer, tmp_path, monkeypatch):
    (tmp_path / "short_is_good.py").write_text(
        "def score(prompts, completions, **columns):\n    return [-float(len(text)) for text in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = written([pair(1), pair(2, chosen=" w1 w1 w1 w1")])
    data = load(tokenizer, {"path": source, "relabel": "short_is_good:score"})
    said = [[tokenizer.decode(ids) for ids in row.completions] for row in data.rows]
    assert said == [["w1 w1 </s>", "w2 w3 w1 </s>"], ["w2 w3 w2 </s>", "w1 w1 w1 w1 </s>"]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{train: {path: d, wieght: 2}}", r"data\.train\.0: unknown key 'wieght'. Did you mean 'weight'"),
        ("{train: [a, {path: d, weight: 0}]}", r"data\.train\.1\.weight: 0 is not possible"),
        ("{train: d, format: hhh}", r"data\.format: unknown format 'hhh'. Did you mean 'hh'"),
        (
            "{train: d, split: {parts: [2, 4, 4], take: 4}}",
            r"data\.split\.take: there is no part 4; they count from 1",
        ),
        ("{train: d, faults: {over_long: keep}}", r"data\.faults\.over_long: unknown value 'keep'"),
        ("{train: d, faults: {empty: keep}}", r"data\.faults: unknown key 'empty'. Did you mean 'empty_reply'"),
        ("{train: []}", r"data\.train"),
    ],
)
def test_what_a_recipe_cannot_say_of_data_is_one_line(tmp_path, data, says):
    path = tmp_path / "r.yaml"
    path.write_text(f"{{algorithm: dpo, model: m, data: {data}}}")
    with pytest.raises(RecipeError, match=says) as raised:
        load_recipe(path)
    assert "\n" not in str(raised.value)


def test_paths_of_a_mixture_start_at_the_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("{algorithm: dpo, model: m, data: {train: [./a.jsonl, {path: ./b.jsonl, weight: 2}]}}")
    assert [source.path for source in load_recipe(path).data.train] == [
        str(tmp_path / "a.jsonl"),
        str(tmp_path / "b.jsonl"),
    ]
    assert [source.path for source in load_recipe(path, {"data.train": "./c.jsonl"}).data.train] == ["./c.jsonl"]
