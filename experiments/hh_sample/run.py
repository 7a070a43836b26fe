"""From recipe to report on real preference pairs: Anthropic's HH (harmless-base, test), a small model from a config.

    python experiments/hh_sample/run.py ../shared/data/preferences/hh_rlhf_harmless_base_test.jsonl.gz

This is a test of the plumbing, not of alignment: a model of two layers learns to sound like HH from 800 answers, and
its judge is no better than it. What matters is that every step is one `flipguard` command on data as people have it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TEST = 200
LONGEST = 800  # characters of a prompt that is asked: the model reads 512 tokens
ALIGNMENTS = {
    "dpo": ["align.yaml", "--constraint.gate", "off"],
    "dpo_kd": ["align.yaml", "--constraint.gate", "always"],
    "dpo_flipguard": ["align.yaml"],
    "kto": ["align.yaml", "--algorithm", "kto"],
    "ipo": ["align.yaml", "--algorithm", "ipo"],
    "simpo": ["align.yaml", "--algorithm", "simpo"],
    "ppo": ["ppo.yaml", "--constraint.gate", "off"],
    "ppo_kd": ["ppo.yaml", "--constraint.gate", "always"],
    "ppo_flipguard": ["ppo.yaml"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="hh_rlhf_harmless_base_test.jsonl.gz")
    pairs = parser.parse_args().pairs.resolve()
    work = HERE / "work"
    (work / "runs").mkdir(parents=True, exist_ok=True)
    split(pairs, work)
    build(work)
    flipguard("train", "sft.yaml", "--resume")
    flipguard("train", "reward.yaml", "--resume")
    answer("sft")
    for name, recipe in ALIGNMENTS.items():
        flipguard("train", *recipe, "--trainer.output_dir", f"work/runs/{name}", "--resume")
        answer(name)
        judged, answers = f"work/judged/{name}.jsonl", ("work/answers/sft.jsonl", f"work/answers/{name}.jsonl")
        flipguard(
            *("judge", "--judge", "reward_model", "--model", "work/runs/reward"),
            *("--old", answers[0], "--new", answers[1], "--out", judged),
        )
        flipguard("compare", judged, "--out", f"work/report/{name}")
    offline, online = ([name for name in ALIGNMENTS if name.startswith("ppo") is sampled] for sampled in (False, True))
    flipguard("plot", *(f"work/runs/{name}" for name in offline), "--out", "work/curves.png")
    flipguard("plot", *(f"work/runs/{name}" for name in online), "--out", "work/curves_ppo.png")
    flipguard("plot", "--scatter", *(f"work/judged/{name}.jsonl" for name in online), "--out", "work/scatter_ppo.png")


def flipguard(*words: str) -> None:
    print("$ flipguard", *words, flush=True)
    subprocess.run([sys.executable, "-m", "flipguard", *words], cwd=HERE, check=True)


def answer(name: str) -> None:
    flipguard(
        *("generate", "--model", f"work/runs/{name}", "--prompts", "work/prompts.jsonl", "--template", "off"),
        *("--max-new-tokens", "48", "--out", f"work/answers/{name}.jsonl"),
    )


def split(pairs: Path, work: Path) -> None:
    """The last pairs in a random order are the test set; their prompts are asked."""
    with gzip.open(pairs, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    random.Random(0).shuffle(rows)
    for name, part in (("train", rows[:-TEST]), ("test", rows[-TEST:])):
        write(work / f"{name}.jsonl", part)
    asked = [row["chosen"].rpartition("\n\nAssistant:")[0] + "\n\nAssistant:" for row in rows[-TEST:]]
    asked = [prompt for prompt in asked if len(prompt) < LONGEST]
    write(work / "prompts.jsonl", [{"id": at, "prompt": prompt} for at, prompt in enumerate(asked)])


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def build(work: Path) -> None:
    """A byte-level tokenizer of 2,000 tokens and a Llama of two layers with random weights."""
    if (work / "model").exists():
        return
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [
        text for line in (work / "train.jsonl").read_text("utf-8").splitlines() for text in json.loads(line).values()
    ]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=2000, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")


if __name__ == "__main__":
    main()
