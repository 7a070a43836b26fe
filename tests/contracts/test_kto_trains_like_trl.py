"""KTO as TRL has it: same rows, same losses at every step, same reference point, same weights after training."""

import json

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import KTOConfig, KTOTrainer

from flipguard.train.run import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]

STEPS, ROWS, RATE, SEED = 8, 10, 1e-2, 7
WEIGHTS = {"desirable_weight": 1.3, "undesirable_weight": 0.8}


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
    """More undesirable than desirable ones, all with prompts of their own."""
    generator = torch.Generator().manual_seed(1)

    def say(low, high):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return " ".join(f"w{int(word)}" for word in torch.randint(0, 30, (length,), generator=generator))

    return [{"prompt": f"w{n} {say(2, 6)}", "completion": f" {say(2, 7)}", "label": n % 5 < 2} for n in range(ROWS)]


def by_trl(tmp_path, folder, tokenizer, rows):
    arguments = KTOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.1,
        **WEIGHTS,
        max_steps=STEPS,
        per_device_train_batch_size=ROWS,
        learning_rate=RATE,
        logging_steps=1,
        seed=SEED,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    trainer = KTOTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    return trainer.model.state_dict(), [entry for entry in trainer.state.log_history if "loss" in entry]


def by_us(tmp_path, folder, rows, **constraint):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = {"max_steps": STEPS, "per_device_train_batch_size": ROWS, "learning_rate": RATE, "seed": SEED}
    recipe = {
        "algorithm": "kto",
        "model": str(folder),
        "data": {"train": "rows.jsonl"},
        "loss": WEIGHTS,
        "constraint": constraint,
        "trainer": {**trainer, "use_cpu": True, "save_strategy": "no"},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    path = train(tmp_path / "recipe.json").path
    history = json.loads((path / "trainer_state.json").read_text())["log_history"]
    return load_file(path / "model.safetensors"), [entry for entry in history if "loss" in entry]


def distance(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in right)


def test_unguarded_kto_gives_trls_losses_reference_points_and_weights(
    tmp_path, monkeypatch, model_folder, tokenizer, rows
):
    """Every batch is the whole set: then TRL's mismatched completions, rotated within a batch, are ours."""
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "cache"))
    start = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32").state_dict()
    theirs, told = by_trl(tmp_path, model_folder, tokenizer, rows)
    ours, logged = by_us(tmp_path, model_folder, rows, gate="off")
    assert distance(start, ours) > 1e-2, "nothing was learned, so nothing was compared"
    assert distance(theirs, ours) < 1e-4
    assert max(step["kl"] for step in told) > 0, "the reference point never moved, so it was not compared"
    for mine, other in zip(logged, told, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert mine["kl/z_0"] == pytest.approx(other["kl"], abs=1e-4)
        for name in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
            assert mine[name] == pytest.approx(other[name], abs=1e-4), name
