import random

import pytest

from flipguard.sandbox.model import build_model
from flipguard.sandbox.teacher import demonstrate
from flipguard.sandbox.tokenizer import SPECIAL, build_tokenizer, vocabulary
from flipguard.sandbox.words import REFUSALS
from flipguard.sandbox.world import KINDS, draw, finite_questions


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def questions():
    return draw(dict.fromkeys(KINDS, 30), "train", random.Random(0), distinct=True)


def test_every_sentence_of_the_world_survives_the_round_trip(tokenizer, questions):
    """Every word alone, and every seventh sentence; all of them take seconds."""
    rng = random.Random(0)
    sentences = [part for q in list(finite_questions().values())[::7] for part in (q.text, q.help)]
    sentences += [part for q in questions for part in (q.text, q.help, demonstrate(q, rng))]
    sentences += REFUSALS
    sentences += sorted({word for q in finite_questions().values() for word in (q.text + " " + q.help).split()})
    numbers = tokenizer(sentences)["input_ids"]
    assert not any(tokenizer.unk_token_id in sentence for sentence in numbers)
    assert tokenizer.backend_tokenizer.decode_batch(numbers, skip_special_tokens=False) == sentences
    assert tokenizer.decode(numbers[0]) == sentences[0]


def test_the_prompt_is_a_token_prefix_of_prompt_and_answer(tokenizer, questions):
    for question in questions:
        answer = [{"role": "assistant", "content": question.help}]
        asked = tokenizer.apply_chat_template(question.prompt, add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template([*question.prompt, *answer])["input_ids"]
        assert whole[: len(asked)] == asked
        assert tokenizer.decode(whole[len(asked) :]) == f"{question.help} {tokenizer.eos_token}"


def test_the_template_marks_what_the_assistant_says(tokenizer):
    turns = [{"role": "user", "content": "sort the letters c b"}, {"role": "assistant", "content": "b c"}]
    marked = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    said = [n for n, ours in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if ours]
    assert tokenizer.decode(said) == f"b c {tokenizer.eos_token}"


def test_what_the_template_wrote_is_tokenized_without_anything_added(tokenizer, questions):
    text = tokenizer.apply_chat_template(questions[0].prompt, add_generation_prompt=True, tokenize=False)
    numbers = tokenizer.apply_chat_template(questions[0].prompt, add_generation_prompt=True)["input_ids"]
    assert tokenizer(text)["input_ids"] == numbers
    assert numbers.count(tokenizer.bos_token_id) == 1


def test_the_special_tokens_differ_and_are_no_words(tokenizer):
    numbers = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL]
    assert numbers == list(range(len(SPECIAL)))
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}) == 4
    assert tokenizer.decode(numbers, skip_special_tokens=True).strip() == ""


def test_the_longest_conversation_fits_the_model(tokenizer):
    longest = max(finite_questions().values(), key=lambda q: len(q.text.split()) + len(q.help.split()))
    turns = [*longest.prompt, {"role": "assistant", "content": longest.help}]
    assert len(tokenizer.apply_chat_template(turns)["input_ids"]) <= tokenizer.model_max_length
    assert len(vocabulary()) == len(tokenizer) == len(set(vocabulary()))


def test_the_model_fits_the_tokenizer_and_leaves_the_chance_of_torch_alone(tokenizer):
    import torch

    before = torch.random.get_rng_state()
    model = build_model(tokenizer, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    same, other = build_model(tokenizer, seed=1), build_model(tokenizer, seed=2)
    weights = [m.lm_head.weight for m in (model, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
