"""Measured flips find their training rows, by id or by prompt, and only theirs."""

import json

import pytest

from flipguard.errors import DataError, RecipeError
from flipguard.train.data import load_pairs
from flipguard.train.flagged import guard_weights
from flipguard.train.recipe import DataSpec


@pytest.fixture
def weighed(tmp_path, tokenizer):
    """Guard weights of training rows, given rows of text and flips."""

    def weigh(rows, flips):
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "flips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in flips))
        source = str(tmp_path / "pairs.jsonl")
        tokens = load_pairs(source, DataSpec(train=source), tokenizer, None).rows
        return guard_weights(tokens, str(tmp_path / "flips.jsonl"), 3.0, tokenizer, place="r.yaml")

    return weigh


def talk(prompt, number):
    def said(text):
        return [{"role": "assistant", "content": text}]

    asked = [{"role": "user", "content": prompt}]
    return {"id": number, "prompt": asked, "chosen": said("w1 w2"), "rejected": said("w3")}


def text(prompt, number):
    return {"id": number, "prompt": prompt, "chosen": " w1", "rejected": " w2"}


def test_a_conversation_is_found_by_its_prompt_however_it_was_written(weighed):
    rows = [talk("w5 w6", 0), talk("w5", 1), talk("w7", 2)]
    assert weighed(rows, [{"id": "x", "prompt": "w5 w6"}]) == [3.0, 1.0, 1.0]
    assert weighed(rows, [{"id": "x", "prompt": rows[2]["prompt"]}]) == [1.0, 1.0, 3.0]


def test_every_row_of_a_prompt_is_found(weighed):
    assert weighed([text("w5", 0), text("w6", 1), text("w5", 2)], [{"prompt": "w5"}]) == [3.0, 1.0, 3.0]


def test_a_flip_without_a_prompt_is_found_by_its_id_in_either_spelling(weighed):
    rows = [text("w5", 0), text("w6", 1)]
    assert weighed(rows, [{"id": 1, "prompt": None}]) == [1.0, 3.0]
    assert weighed(rows, [{"id": "0"}]) == [3.0, 1.0]


def test_an_id_whose_prompt_is_another_one_is_an_accident(weighed):
    rows = [text("w5", 0), text("w6", 1)]
    assert weighed(rows, [{"id": 0, "prompt": "w6"}]) == [1.0, 3.0]


def test_flips_of_other_data_are_an_error_that_counts_them(weighed):
    with pytest.raises(RecipeError, match=r"^r.yaml: constraint.flips: not one of the 2 flips of .*flips.jsonl is a"):
        weighed([text("w5", 0)], [{"id": 7}, {"id": 0, "prompt": "w9"}])


def test_a_line_that_is_no_flip_is_an_error_with_its_place(weighed):
    with pytest.raises(DataError, match=r"flips.jsonl:2: has neither 'id' nor 'prompt'"):
        weighed([text("w5", 0)], [{"id": 0}, {"score": 1}])


def test_how_many_were_found_is_told(weighed, capsys):
    weighed([text("w5", 0), text("w6", 1)], [{"prompt": "w5"}, {"prompt": "w8"}])
    assert "2 flips; 1 of 2 training rows weigh 3\n" in capsys.readouterr().err
