"""Reward models on this machine, against one text at a time through the model itself."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from flipguard.errors import JudgeError, ModelError
from flipguard.rewards.opening import open_reward
from flipguard.rewards.spec import RewardSpec

PROMPTS = ["w1 w2", "w3", "w4 w5 w6 w7", "w1"]
COMPLETIONS = ["w8", "w9 w10 w11 w12 w13", "w14", "w2 w3 w4"]
CHAT = "<s> {% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' </s> ' }}{% endfor %}"


def reward(folder, **spec):
    return open_reward(RewardSpec(path=str(folder), **spec), "--model")


def alone(folder, ids, kind=AutoModelForSequenceClassification):
    """The model's own score of one text, which nothing can pad."""
    model = kind.from_pretrained(folder).eval()
    model.config.pad_token_id = -1
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.item()


def test_padding_that_is_also_the_end_token_does_not_hide_the_last_token(save_classifier):
    folder = save_classifier(chat=CHAT, pad="</s>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = reward(folder, batch_size=3).function(PROMPTS, COMPLETIONS)
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        ids = tokenizer(f"<user> {prompt} </s> <assistant> {completion} </s>")["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == 1
        assert score == pytest.approx(alone(folder, ids), abs=1e-5)


def test_a_reward_model_without_a_padding_token_scores_batches(save_classifier):
    folder = save_classifier(chat=CHAT, pad=None)
    whole = reward(folder, batch_size=4).function(PROMPTS, COMPLETIONS)
    single = reward(folder, batch_size=1).function(PROMPTS, COMPLETIONS)
    assert whole == pytest.approx(single, abs=1e-5)


def test_a_chat_template_and_its_tokenizer_put_the_first_token_once(save_classifier):
    scorer = reward(save_classifier(chat=CHAT))
    ids = scorer.function.encode([{"role": "user", "content": "w1"}], [{"role": "assistant", "content": "w2"}]).ids
    assert ids.count(0) == 1


def test_texts_and_messages_of_the_same_words_score_the_same(save_classifier):
    scorer = reward(save_classifier(chat=CHAT))
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    answers = [[{"role": "assistant", "content": completion}] for completion in COMPLETIONS]
    assert scorer.function(messages, answers) == pytest.approx(scorer.function(PROMPTS, COMPLETIONS), abs=1e-6)


def test_without_a_template_a_text_ends_with_one_end_token(save_classifier):
    scorer = reward(save_classifier())
    ids = scorer.function.encode("w1 w2 ", "w3").ids
    assert ids[0] == 0
    assert ids[-1] == 1
    assert ids.count(1) == 1
    assert scorer.function.encode("w1 ", "w2 </s>").ids.count(1) == 1


def test_long_texts_are_cut_at_their_end_and_counted(save_classifier):
    folder = save_classifier(chat=CHAT)
    scorer = reward(folder, max_tokens=6)
    assert scorer.told() is None
    (score,) = scorer.function(["w1"], ["w2 w3 w4 w5 w6"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("<user> w1 </s> <assistant> w2 w3 w4 w5 w6 </s>")["input_ids"][:6]
    assert score == pytest.approx(alone(folder, ids), abs=1e-5)
    assert scorer.told() == "1 of 1 texts cut at 6 tokens"


def test_what_the_model_cannot_read_is_cut_too(save_classifier):
    scorer = reward(save_classifier(chat=CHAT))
    scorer.function(["w1 " * 100], ["w2"])
    assert scorer.told() == "1 of 1 texts cut at 64 tokens"


def test_a_pair_of_texts_goes_to_an_encoder_with_its_types(save_pair_classifier):
    folder = save_pair_classifier()
    scores = reward(folder, batch_size=4).function(PROMPTS, COMPLETIONS)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        encoded = tokenizer(prompt, completion, return_tensors="pt")
        assert encoded["token_type_ids"].sum() > 0
        with torch.no_grad():
            assert score == pytest.approx(model(**encoded).logits.item(), abs=1e-5)


def test_a_regression_head_on_a_causal_model_reads_its_last_token(save_classifier):
    """The layout of UltraRM: model.*, and regression_head.weight instead of a classifier's score."""
    folder = save_classifier("ultra")
    model = LlamaForSequenceClassification.from_pretrained(folder)
    weights = {name.replace("score.", "regression_head."): weight for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    scores = reward(folder).function(PROMPTS, COMPLETIONS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        ids = tokenizer(f"Human: {prompt}\n\nAssistant: {completion}")["input_ids"]
        with torch.no_grad():
            state = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        assert score == pytest.approx((weights["regression_head.weight"] @ state).item(), abs=1e-5)


def test_a_language_model_is_told_from_a_reward_model(save_classifier):
    folder = save_classifier("lm")
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"is no reward model: score\.weight is missing"):
        reward(folder)


def test_several_labels_are_no_reward(save_classifier):
    with pytest.raises(ModelError, match="has 3 labels; a reward model has one"):
        reward(save_classifier(labels=3))


def test_a_form_the_tokenizer_does_not_know_is_an_error(save_classifier):
    with pytest.raises(ModelError, match="has no chat template"):
        reward(save_classifier(), form="chat")


def test_conversations_cannot_be_plain_text(save_classifier):
    scorer = reward(save_classifier())
    with pytest.raises(JudgeError, match="reads plain text, but the prompts are lists of messages"):
        scorer.function([[{"role": "user", "content": "w1"}]], [[{"role": "assistant", "content": "w2"}]])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "classifer"}, "Did you mean 'classifier'"),
        ({"batch_size": 0}, "batch_size 0 is not possible"),
        ({"max_tokens": -1}, "max_tokens -1 is not possible"),
        ({"retries": -1}, "retries -1 is not possible"),
    ],
)
def test_impossible_settings_are_told(wrong, said):
    with pytest.raises(JudgeError, match=said):
        open_reward(RewardSpec(path="here", **wrong), "--model")


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        reward(tmp_path / "nowhere")
