"""A tiny language model with a real tokenizer, made from a config; and files around it."""

from __future__ import annotations

import random

import orjson
import pytest

WORDS = [f"w{number}" for number in range(60)]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'wizard' %}{{ raise_exception('no wizards') }}{% endif %}"
    "<s> {{ message['role'] }} {{ message['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


def _make_tokenizer(*, chat_template=None, begins=False, ends=False):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "<s>", "</s>", "<pad>", "user", "assistant", "system", *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begins or ends:
        single = "<s> " * begins + "$A" + " </s>" * ends
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    made.chat_template = chat_template
    return made


def _make_model(folder, *, seed=0, positions=64, **tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = _make_tokenizer(**tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(made),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=positions,
                initializer_range=0.4,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=3,
            )
        )
    made.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _write_rows(path, rows):
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def _read_rows(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def _make_prompts(count, seed=0):
    source = random.Random(seed)
    return [
        {"id": f"p{number}", "prompt": " ".join(source.choices(WORDS, k=source.randint(1, 12))), "category": "any"}
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return _make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory):
    return _make_model(tmp_path_factory.mktemp("chat"), chat_template=TEMPLATE)


@pytest.fixture
def prompts(tmp_path):
    return _write_rows(tmp_path / "prompts.jsonl", _make_prompts(13))


@pytest.fixture(scope="session")
def make_model():
    return _make_model


@pytest.fixture(scope="session")
def make_tokenizer():
    return _make_tokenizer


@pytest.fixture(scope="session")
def make_prompts():
    return _make_prompts


@pytest.fixture(scope="session")
def write_rows():
    return _write_rows


@pytest.fixture(scope="session")
def read_rows():
    return _read_rows
