"""How fast are 160,000 preference pairs read, checked, tokenized and found again? Against TRL's steps in datasets.map.

python benchmarks/data_loading.py [--pairs 160000] [--hh hh.jsonl.gz]

Pairs are those of --hh with a number after each answer, so that all differ, or of made-up words; a byte-level BPE of
8,000 tokens is trained on them. The peer is what TRL's DPOTrainer does to such rows (extract the prompt, tokenize) in
as many processes; it finds no faults. It is measured on --peer-pairs rows and scaled up. One row goes to
data_loading.csv.
"""

import argparse
import gzip
import json
import os
import platform
import random
import tempfile
import time
from pathlib import Path

import datasets
from recording import append, made
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from trl.data_utils import extract_prompt

from flipguard.train.data import load_pairs
from flipguard.train.dataspec import DataSpec

RESULTS = Path(__file__).parent / "data_loading.csv"


def made_up(count=2_000):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(5_000)]

    def say(low, high):
        return " ".join(rng.choices(words, k=rng.randint(low, high)))

    for _ in range(count):
        prompt = f"\n\nHuman: {say(5, 40)}\n\nAssistant: {say(10, 60)}\n\nHuman: {say(5, 40)}\n\nAssistant:"
        yield {"chosen": f"{prompt} {say(10, 90)}", "rejected": f"{prompt} {say(10, 90)}"}


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path, pairs, base):
    with path.open("w") as file:
        for number in range(pairs):
            row = base[number % len(base)]
            marked = {side: f"{text} {number}" for side, text in row.items()}
            file.write(json.dumps(marked) + "\n")


def tokenizer_of(rows):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8_000, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator((row["chosen"] for row in rows), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def trl(path, tokenizer, workers, pairs):
    """Rows as TRL's DPOTrainer makes them: the prompt by the common prefix, then prompt and completions as ids."""

    def tokenize(row):
        prompt = tokenizer(row["prompt"])["input_ids"]
        sides = {side: tokenizer(row["prompt"] + row[side] + "<end>")["input_ids"] for side in ("chosen", "rejected")}
        return {"prompt_ids": prompt, **{f"{side}_ids": ids[len(prompt) :] for side, ids in sides.items()}}

    data = datasets.load_dataset("json", data_files=str(path), split=f"train[:{pairs}]")
    data = data.map(extract_prompt, num_proc=workers)
    return data.map(tokenize, num_proc=workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=160_000)
    parser.add_argument("--peer-pairs", type=int, default=20_000)
    parser.add_argument("--hh", type=Path)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    base = read(options.hh) if options.hh else list(made_up())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FLIPGUARD_CACHE"] = folder
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "hf"
        path = Path(folder) / "pairs.jsonl"
        write(path, options.pairs, base)
        tokenizer = tokenizer_of(base)
        spec = DataSpec(train=str(path))
        first, data = timed(lambda: load_pairs(spec.train, spec, tokenizer, None))
        again, _ = timed(lambda: load_pairs(spec.train, spec, tokenizer, None))
        size = path.stat().st_size / 1e6
        peer, _ = timed(lambda: trl(path, tokenizer, workers, options.peer_pairs))
        peer *= options.pairs / options.peer_pairs
    row = {
        **made(),
        "device": f"{workers} x {platform.machine()}",
        "python": platform.python_version(),
        "data": "hh test, repeated" if options.hh else "made up",
        "pairs": options.pairs,
        "megabytes": round(size),
        "first_seconds": round(first, 1),
        "first_pairs_per_second": round(options.pairs / first),
        "cached_seconds": round(again, 2),
        "trl_seconds_scaled": round(peer, 1),
        "trl_pairs_measured": options.peer_pairs,
    }
    print(data.summary())
    append(RESULTS, row)


if __name__ == "__main__":
    main()
