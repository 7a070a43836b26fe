from __future__ import annotations

import shutil
import warnings

import orjson
import pytest

from flipguard.errors import DataError, ModelError
from flipguard.evaluate.engine import Question, Settings

torch = pytest.importorskip("torch")

from flipguard.evaluate.engines import transformers as engine  # noqa: E402 (it needs torch)

GREEDY = {
    "max_new_tokens": 8,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "dtype": "float32",
    "device": "cpu",
    "template": "auto",
}


def settings(model, **changes):
    return Settings(**{"model": str(model), **GREEDY, **changes})


def questions(*prompts):
    return [Question(f"prompts.jsonl:{number}", f"p{number}", prompt) for number, prompt in enumerate(prompts, 1)]


def ask(model, *prompts, seed=0, **changes):
    asked = questions(*prompts)
    return engine.open_engine(settings(model, **changes)).load(asked)(asked, seed)


def tokens_put_in(tokenizer, prompt, template="auto"):
    (ids,) = engine._encode(tokenizer, questions(prompt), settings("m", template=template))
    return tokenizer.convert_ids_to_tokens(ids)


def edited(folder, target, name, **changes):
    shutil.copytree(folder, target)
    path = target / name
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **changes}))
    return target


def test_a_batch_padded_on_the_left_answers_as_one_by_one(model, make_prompts):
    prompts = [row["prompt"] for row in make_prompts(9)]
    together = ask(model, *prompts)
    assert together == [ask(model, prompt)[0] for prompt in prompts]
    assert len({answer.completion for answer in together}) > 3


def test_the_answer_is_what_a_plain_loop_over_argmax_says(model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, plain = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    ids = tokenizer("w1 w2 w3", return_tensors="pt")["input_ids"]
    for _ in range(8):
        with torch.no_grad():
            ids = torch.cat([ids, plain(ids).logits[:, -1:].argmax(-1)], dim=1)
    (answer,) = ask(model, "w1 w2 w3")
    assert answer.completion == tokenizer.decode(ids[0, 3:], skip_special_tokens=True)


def test_samples_depend_on_the_seed_and_on_nothing_before(model):
    first = ask(model, "w1", "w2 w3", temperature=1.0, seed=7)
    torch.manual_seed(99)
    assert ask(model, "w1", "w2 w3", temperature=1.0, seed=7) == first
    assert ask(model, "w1", "w2 w3", temperature=1.0, seed=8) != first


def test_sampling_leaves_the_random_state_of_the_program_alone(model):
    before = torch.random.get_rng_state()
    ask(model, "w1", temperature=1.0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sampling_from_one_token_is_greedy(model):
    assert ask(model, "w1 w2", temperature=1.0, top_k=1) == ask(model, "w1 w2")


def test_any_end_token_of_the_model_ends_the_answer_and_is_not_part_of_it(model, tmp_path):
    (whole,) = ask(model, "w5 w6")
    words = whole.completion.split()
    at = next(number for number in range(1, len(words)) if words[number] not in words[:number])
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(model).convert_tokens_to_ids(words[at])
    ending = edited(model, tmp_path / "ending", "generation_config.json", eos_token_id=[2, end])
    (cut,) = ask(ending, "w5 w6")
    assert (cut.finish_reason, cut.completion) == ("stop", " ".join(words[:at]))
    assert whole.finish_reason == "length"


def test_what_the_model_was_saved_with_does_not_change_how_it_is_asked(model, tmp_path):
    habits = {"do_sample": True, "temperature": 5.0, "top_k": 3, "repetition_penalty": 3.0, "max_length": 3}
    other = edited(model, tmp_path / "habits", "generation_config.json", **habits, min_p=0.2, use_cache=False)
    assert ask(other, "w1 w2", "w7") == ask(model, "w1 w2", "w7")
    sampled = {"temperature": 1.0, "top_p": 0.9, "top_k": 9}
    assert ask(other, "w1 w2", **sampled) == ask(model, "w1 w2", **sampled)


def test_asking_prints_nothing_and_warns_of_nothing(model, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(model, "w1")
        ask(model, "w1", temperature=1.0)
    assert capfd.readouterr() == ("", "")


def test_a_text_becomes_a_user_message_where_there_is_a_template(chat_model):
    assert ask(chat_model, "w1 w2") == ask(chat_model, [{"role": "user", "content": "w1 w2"}])
    assert ask(chat_model, "w1 w2") != ask(chat_model, "w1 w2", template="off")


def test_the_template_is_followed_by_the_start_of_the_answer(chat_model):
    from transformers import AutoTokenizer

    tokens = tokens_put_in(AutoTokenizer.from_pretrained(chat_model), "w1")
    assert tokens == ["<s>", "user", "w1", "</s>", "<s>", "assistant"]


def test_no_token_that_begins_a_text_comes_twice_and_none_ends_the_prompt(make_tokenizer):
    template = "<s> {{ messages[0]['content'] }}"
    both = make_tokenizer(begins=True, ends=True, chat_template=template)
    assert tokens_put_in(both, "w1 w2") == ["<s>", "w1", "w2"]
    assert tokens_put_in(both, "w1 w2", template="off") == ["<s>", "w1", "w2"]
    assert tokens_put_in(both, "<s> w1 w2", template="off") == ["<s>", "w1", "w2"]
    assert tokens_put_in(both, "w1 </s>", template="off")[-1] == "</s>"
    assert tokens_put_in(make_tokenizer(), "w1 w2") == ["w1", "w2"]


def test_messages_without_a_template_are_refused_with_their_place(model):
    with pytest.raises(ModelError, match=r"prompts.jsonl:1: id 'p1' is a list of messages.*no chat template"):
        ask(model, [{"role": "user", "content": "w1"}])


def test_messages_that_the_template_refuses_are_named(chat_model):
    with pytest.raises(DataError, match=r"prompts.jsonl:1: id 'p1'.*no wizards"):
        ask(chat_model, [{"role": "wizard", "content": "w1"}])


def test_a_prompt_without_a_single_token_is_refused(model):
    with pytest.raises(DataError, match=r"prompts.jsonl:2: id 'p2': the tokenizer makes no token"):
        ask(model, "w1", "\u2003")


def test_a_prompt_longer_than_the_context_is_named_before_anything_is_answered(model):
    with pytest.raises(ModelError) as caught:
        ask(model, "w1", "w2 " * 60)
    message = str(caught.value)
    assert "prompts.jsonl:2: id 'p2' has 60 tokens" in message
    assert "8 new ones" in message
    assert "the 64 positions" in message
    assert "--max-new-tokens to at most 4" in message
    with pytest.raises(ModelError, match="leave the prompt out"):
        ask(model, "w2 " * 64)


def test_a_prompt_that_just_fits_is_answered(model):
    assert ask(model, "w2 " * 56)[0].completion


@pytest.mark.parametrize("name", ["./nope", "runs/dpo/final", "~/no/such/model"])
def test_a_missing_folder_is_told_without_asking_the_network(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(ModelError, match=r"no such folder; looked for config.json or adapter_config.json"):
        ask(name, "w1")


def test_a_folder_without_a_model_says_what_is_in_it(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(ModelError, match=r"neither config.json nor adapter_config.json.*found: checkpoint-5/"):
        ask(tmp_path, "w1")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelError, match="is a file"):
        ask(tmp_path / "model.bin", "w1")


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        ask("nobody/nothing", "w1")
    assert str(caught.value).startswith("nobody/nothing: no folder of this name here, and as a hub id it cannot be had")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_folder_is_one_line(model, tmp_path, file):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / file).write_bytes(b"{ broken")
    with pytest.raises(ModelError, match=r"broken: the (model|tokenizer) cannot be loaded") as caught:
        ask(broken, "w1")
    assert "\n" not in str(caught.value)


def test_a_model_with_missing_weights_is_refused(model, tmp_path):
    from transformers import AutoConfig, LlamaForSequenceClassification

    folder = tmp_path / "classifier"
    shutil.copytree(model, folder)
    LlamaForSequenceClassification(AutoConfig.from_pretrained(model)).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"weights are missing, such as lm_head.weight"):
        ask(folder, "w1")


def test_a_device_that_is_not_there_is_named(model):
    for device in ("cuda:99", "toaster"):
        with pytest.raises(ModelError, match=f"--device {device}: cannot be used here"):
            ask(model, "w1", device=device)


def test_the_identity_follows_the_weights_not_the_place(model, make_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / "trainer_state.json").write_text("{}")

    def sha256(folder):
        return engine.open_engine(settings(folder)).identity()["model_sha256"]

    assert sha256(copy) == sha256(model)
    assert sha256(make_model(tmp_path / "other", seed=1)) != sha256(model)


def test_an_adapter_answers_with_its_base_model(model, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(model),
        peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, tmp_path / "merged" / name)
    assert ask(tmp_path / "adapter", "w1 w2") == ask(tmp_path / "merged", "w1 w2")
    assert ask(tmp_path / "adapter", "w1 w2") != ask(model, "w1 w2")
    identity = engine.open_engine(settings(tmp_path / "adapter")).identity()
    assert {"model_sha256", "base_model", "base_model_sha256"} <= identity.keys()


def test_large_weights_are_told_apart_by_their_samples(tmp_path, monkeypatch):
    from flipguard import weights

    monkeypatch.setattr(weights, "WHOLE", 1 << 16)
    monkeypatch.setattr(weights, "SAMPLES", 8)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(1 << 17))
    before = weights.weights_sha256(tmp_path)
    path.write_bytes(bytes((1 << 17) - 1) + b"\1")
    assert weights.weights_sha256(tmp_path) != before
