"""Whoever comes from TRL keeps their model: same pairs, same order, same weights after training."""

import json

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from flipguard.integrations.trl import GuardedDPOConfig, GuardedDPOTrainer
from flipguard.train.run import train

pytestmark = pytest.mark.slow

STEPS, BATCH, RATE, SEED = 12, 4, 1e-2, 7
LOSSES = {"dpo": "sigmoid", "ipo": "ipo", "hinge": "hinge", "nca": "nca_pair", "apo_zero": "apo_zero"}


@pytest.fixture
def tokenizer():
    words = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(30))]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


@pytest.fixture
def model_folder(tmp_path, tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **special)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)

    def say(low, high):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return " ".join(f"w{int(word)}" for word in torch.randint(0, 30, (length,), generator=generator))

    return [{"prompt": say(2, 6), "chosen": f" {say(2, 7)}", "rejected": f" {say(2, 7)}"} for _ in range(40)]


def by_trl(tmp_path, folder, tokenizer, rows, loss_type, *, config=DPOConfig, cls=DPOTrainer, **constraint):
    arguments = config(
        output_dir=str(tmp_path / "trl"),
        loss_type=loss_type,
        beta=0.1,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        seed=SEED,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **constraint,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    trainer = cls(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    return trainer.model.state_dict()


def by_us(tmp_path, folder, rows, algorithm, **constraint):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "algorithm": algorithm,
        "model": str(folder),
        "data": {"train": "pairs.jsonl"},
        "constraint": constraint,
        "trainer": {
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "learning_rate": RATE,
            "seed": SEED,
            "use_cpu": True,
            "save_strategy": "no",
        },
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    return load_file(train(tmp_path / "recipe.json").path / "model.safetensors")


def distance(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in right)


@pytest.mark.parametrize(("algorithm", "loss_type"), LOSSES.items())
def test_unguarded_training_gives_trls_weights(
    tmp_path, monkeypatch, model_folder, tokenizer, rows, algorithm, loss_type
):
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "cache"))
    start = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32").state_dict()
    theirs = by_trl(tmp_path, model_folder, tokenizer, rows, loss_type)
    ours = by_us(tmp_path, model_folder, rows, algorithm, gate="off")
    assert distance(start, ours) > 1e-2, "nothing was learned, so nothing was compared"
    assert distance(theirs, ours) < 1e-4


@pytest.mark.parametrize(
    ("algorithm", "constraint"),
    [
        ("dpo", {}),
        ("dpo", {"gate": "always"}),
        ("dpo", {"reduction": "mean", "epsilon": 0.05}),
        ("ipo", {}),
        ("hinge", {}),
    ],
)
def test_guarded_training_gives_the_weights_of_trls_guarded_trainer(
    tmp_path, monkeypatch, model_folder, tokenizer, rows, algorithm, constraint
):
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "cache"))
    constraint = {"gamma": 0.5, **constraint}
    guarded = {"config": GuardedDPOConfig, "cls": GuardedDPOTrainer}
    theirs = by_trl(tmp_path, model_folder, tokenizer, rows, LOSSES[algorithm], **guarded, **constraint)
    ours = by_us(tmp_path, model_folder, rows, algorithm, **constraint)
    unguarded = by_us(tmp_path / "unguarded", model_folder, rows, algorithm, gate="off")
    assert distance(unguarded, ours) > 1e-2, "nothing was guarded, so nothing was compared"
    assert distance(theirs, ours) < 1e-4
