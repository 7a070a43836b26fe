"""TRL's trainers, guarded, on a model and data small enough for a blink; all from configs, nothing downloaded."""

import datasets
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


@pytest.fixture(scope="session")
def prompts():
    return [f"w{at} w{at + 1}" for at in range(12)]


@pytest.fixture(scope="session")
def share_of_even_words(prompts):
    """A reward every sample differs in; the seventh prompt cannot be graded."""

    def share_of_even_words(completions, **columns):
        words = [completion.split() for completion in completions]
        return [
            None if prompt == prompts[6] else sum(int(word[1:]) % 2 == 0 for word in said if word[1:].isdigit()) / 8
            for prompt, said in zip(columns["prompts"], words, strict=True)
        ]

    return share_of_even_words


@pytest.fixture
def build(tmp_path, make_model, tokenizer, prompts, share_of_even_words):
    """An online trainer of a class and config, on these prompts and that reward, from a folder if of no model."""
    make_model().save_pretrained(tmp_path / "model")

    def make(trainer, config, model=None, **further):
        return trainer(
            model=str(tmp_path / "model") if model is None else model,
            reward_funcs=share_of_even_words,
            args=config,
            train_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=tokenizer,
            **further,
        )

    return make


@pytest.fixture(scope="session")
def same():
    """Whether two models' weights are the same, bit for bit."""
    return lambda left, right: all(torch.equal(left[name], right[name]) for name in left)
