"""TRL's trainers, guarded, on a model and data small enough for a blink; all from configs, nothing downloaded."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(30)]
ARGUMENTS = {
    "per_device_train_batch_size": 6,
    "per_device_eval_batch_size": 6,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(scope="session")
def tokenizer():
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


@pytest.fixture(scope="session")
def make_model(tokenizer):
    """A new tiny model, the same every time; it comes from no folder, so nothing can be reloaded from one."""

    def make():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, **special))

    return make


@pytest.fixture(scope="session")
def rows():
    generator = torch.Generator().manual_seed(1)

    def say(low, high):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return " ".join(f"w{int(word)}" for word in torch.randint(0, 30, (length,), generator=generator))

    return [{"prompt": say(2, 6), "chosen": f" {say(2, 7)}", "rejected": f" {say(2, 7)}"} for _ in range(24)]


@pytest.fixture(scope="session")
def arguments():
    return ARGUMENTS


@pytest.fixture
def shifted():
    """Moves every trainable weight a little, so that some answers have become less likely and some have not."""

    def shift(model, by=0.05):
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += by * torch.randn(parameter.shape, generator=generator)

    return shift
