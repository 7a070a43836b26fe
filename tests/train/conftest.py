"""A model and a tokenizer small enough to train in a blink, made from configs."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(40)]
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' ' }}"
    "{% if m['role'] == 'assistant' %}{{ '</s> ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
CONTEXT = 64


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tokenizer():
    special = ["<pad>", "</s>", "<unk>", "<user>", "<assistant>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_pairs():
    """Writes preference pairs that one step of training already moves."""

    def write(path: Path, count: int = 48, seed: int = 0) -> Path:
        rng = random.Random(seed)

        def say(length):
            return " ".join(rng.choices(WORDS, k=length))

        rows = [
            {
                "id": number,
                "prompt": [{"role": "user", "content": say(rng.randint(2, 6))}],
                "chosen": [{"role": "assistant", "content": say(rng.randint(1, 9))}],
                "rejected": [{"role": "assistant", "content": say(rng.randint(1, 9))}],
            }
            for number in range(count)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def make_recipe(tmp_path, model_folder, make_pairs):
    """Writes a recipe beside its data; keyword arguments replace sections, a None removes one."""

    def write(name: str = "dpo", **sections: object) -> Path:
        if not (tmp_path / "pairs.jsonl").exists():
            make_pairs(tmp_path / "pairs.jsonl")
        recipe = {
            "algorithm": "dpo",
            "model": str(model_folder),
            "data": {"train": "pairs.jsonl"},
            "trainer": {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "max_steps": 24, "use_cpu": True},
        }
        recipe |= sections
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({key: value for key, value in recipe.items() if value is not None}))
        return path

    return write
