"""Rows become tokens exactly once, and every row that does not is an error or counted."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from flipguard.errors import DataError, ModelError
from flipguard.train.data import load_completions, load_pairs, load_unpaired
from flipguard.train.dataspec import DataSpec
from flipguard.train.formats import Example
from flipguard.train.texts import texts_of

ASK = [{"role": "user", "content": "w1 w2"}]


def say(text):
    return [{"role": "assistant", "content": text}]


def row(**changes):
    return {"prompt": ASK, "chosen": say("w3"), "rejected": say("w4")} | changes


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        (tmp_path / "d.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
        return str(tmp_path / "d.jsonl")

    return write


def load(source, tokenizer, context=64, **limits):
    return load_pairs(source, DataSpec(train=source, **limits), tokenizer, context)


def test_tokens_are_those_of_the_chat_template(written, tokenizer):
    (pair,) = load(written(row()), tokenizer).rows
    whole = tokenizer.apply_chat_template([*ASK, *say("w3")], tokenize=True, return_dict=False)
    assert [*pair.prompt, *pair.completions[0]] == whole
    assert tokenizer.decode(pair.prompt) == "<user> w1 w2 <assistant>"
    assert tokenizer.decode(pair.completions[1]) == "w4 </s>"


def test_plain_texts_end_with_the_end_token_once(written, tokenizer):
    rows = row(prompt="w1", chosen=" w2", rejected=" w3 </s>")
    (pair,) = load(written(rows), tokenizer).rows
    assert [ids.count(tokenizer.eos_token_id) for ids in pair.completions] == [1, 1]
    assert [ids[-1] for ids in pair.completions] == [tokenizer.eos_token_id] * 2


def test_an_unsaid_prompt_is_the_shared_conversation(written, tokenizer):
    implicit = {"chosen": [*ASK, *say("w3")], "rejected": [*ASK, *say("w4")]}
    assert load(written(implicit), tokenizer).rows[0].prompt == load(written(row()), tokenizer).rows[0].prompt


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chosen": None}, "'chosen' must be a text or a list of messages, found None"),
        ({"rejected": [{"role": "assistant"}]}, "'rejected' has a message without role and content"),
        ({"prompt": []}, "'prompt' must be a text or a list of messages"),
        ({"prompt": "w1"}, "must all be texts, or all lists of messages"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(written, tokenizer, changes, says):
    source = written(row(), row(**changes))
    with pytest.raises(DataError) as raised:
        load(source, tokenizer)
    assert str(raised.value).startswith(f"{source}:2: ")
    assert says in str(raised.value)


def test_rows_beyond_the_limits_and_identical_answers_are_counted(written, tokenizer):
    long = {"role": "user", "content": "w1 " * 20}
    rows = [row(), row(prompt=[long]), row(chosen=say("w1 " * 20)), row(rejected=say("w3"))]
    data = load(written(*rows), tokenizer, max_prompt_tokens=10, max_completion_tokens=10)
    assert len(data.rows) == 1
    assert data.summary() == (
        "1 rows; left out: 1 with completions over 10 tokens, 1 with identical answers, 1 with prompts over 10 tokens"
    )


def test_a_row_longer_than_the_model_is_an_error_with_a_way_out(written, tokenizer):
    with pytest.raises(
        DataError, match=r"d.jsonl:1: prompt \(4 tokens\) and completion \(2\) exceed the model's context of 5"
    ):
        load(written(row()), tokenizer, context=5)


def test_nothing_to_train_on_is_an_error(written, tokenizer):
    with pytest.raises(DataError, match="nothing to train on"):
        load(written(row(rejected=say("w3"))), tokenizer)
    with pytest.raises(DataError, match="nothing to train on"):
        load(written(), tokenizer)


def test_a_missing_file_and_an_unknown_format_are_errors(tokenizer, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load(str(tmp_path / "none.jsonl"), tokenizer)
    (tmp_path / "d.xml").touch()
    with pytest.raises(DataError, match=r"Choose one of: \.jsonl"):
        load(str(tmp_path / "d.xml"), tokenizer)


def test_texts_and_conversations_do_not_mix(written, tokenizer):
    with pytest.raises(DataError, match=r"d.jsonl:2: texts and conversations are mixed"):
        load(written(row(), row(prompt="w1", chosen="w2", rejected="w3")), tokenizer)


def test_a_template_that_rewrites_the_prompt_is_refused():
    class Forgetful:
        chat_template = "x"
        eos_token = "</s>"

        def apply_chat_template(self, messages, add_generation_prompt=False, **_options):
            return ["asked <think>" if add_generation_prompt else "asked answered"] * len(messages)

    with pytest.raises(ModelError, match="rewrites the prompt"):
        texts_of(Forgetful(), [Example(ASK, (say("w1"),))], ["d.jsonl:1"])


def test_the_first_token_of_an_answer_is_the_one_the_whole_text_has(written):
    """Tokenizers that mark the start of a text would put the mark before the answer, were it tokenized alone."""
    vocabulary = ["<pad>", "</s>", "<unk>", "\u2581w1", "\u2581w2", "w1", "w2", "\n"]
    words = {word: number for number, word in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split("\n", "isolated")]
    )
    marking = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    (pair,) = load(written(row(prompt="w1\n", chosen="w2", rejected="w1")), marking).rows
    assert [words["\u2581w1"], words["\n"]] == pair.prompt
    assert [words["w2"], words["</s>"]] == pair.completions[0]


def test_where_no_format_fits_every_one_says_why(written, tokenizer):
    with pytest.raises(DataError, match=r"their keys are 'prompt, good'\. Tried hh: no 'chosen'; ultrafeedback"):
        load(written({"prompt": "w1", "good": "w2"}), tokenizer)


def test_supervised_rows_come_in_three_shapes(written, tokenizer):
    shapes = [
        {"prompt": ASK, "completion": say("w3")},
        {"messages": [*ASK, *say("w3")]},
        {"messages": [*ASK, *say("w3")], "prompt": "the first turn again"},
        row(),
    ]
    for shape in shapes:
        source = written(shape)
        (item,) = load_completions(source, DataSpec(train=source), tokenizer, 64).rows
        assert tokenizer.decode(item.prompt) == "<user> w1 w2 <assistant>"
        assert [tokenizer.decode(ids) for ids in item.completions] == ["w3 </s>"]


def test_a_supervised_row_without_a_completion_is_refused(written, tokenizer):
    source = written({"prompt": ASK})
    with pytest.raises(DataError, match="supervised: no 'completion' or 'messages'"):
        load_completions(source, DataSpec(train=source), tokenizer, 64)


def test_unpaired_rows_carry_their_label_and_their_own_id(written, tokenizer):
    rows = [
        {"id": "a", "prompt": ASK, "completion": say("w3"), "label": True},
        {"prompt": ASK, "completion": say("w4"), "label": False},
    ]
    source = written(*rows)
    good, bad = load_unpaired(source, DataSpec(train=source), tokenizer, 64).rows
    assert (good.label, good.id, bad.label, bad.id) == (True, "a", False, None)
    assert [tokenizer.decode(row.completions[0]) for row in (good, bad)] == ["w3 </s>", "w4 </s>"]
    assert len(good.completions) == len(bad.completions) == 1


def test_a_pair_is_one_desirable_and_one_undesirable_row(written, tokenizer):
    source = written(row(id=7))
    (pair,) = load(source, tokenizer).rows
    good, bad = load_unpaired(source, DataSpec(train=source), tokenizer, 64).rows
    assert (good.label, bad.label, pair.label) == (True, False, None)
    assert (good.id, bad.id, pair.id) == (7, 7, 7)
    assert (good.completions[0], bad.completions[0]) == pair.completions


def test_an_unpaired_row_without_a_truth_value_is_refused(written, tokenizer):
    source = written({"prompt": "w1", "completion": "w2", "label": "good"})
    with pytest.raises(DataError, match=r"d.jsonl:1: 'label' must be true \(desirable\) or false, found 'good'"):
        load_unpaired(source, DataSpec(train=source), tokenizer, 64)
