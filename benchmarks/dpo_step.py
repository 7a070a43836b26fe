"""How long does a DPO step take, and how much memory, against trl.DPOTrainer? Appends rows to dpo_step.csv.

Every contender is a process of its own (so that its peak memory is its own), with the same weights, pairs, order,
batch size and learning rate; contenders take turns, and medians over steps and rounds count, without the first step.
The unguarded losses of all steps are compared with TRL's. Ratios are those of processor seconds: on a machine that does
other work too, they are the ones to trust.

`trl default` is DPOConfig as it comes, in float32 (its bfloat16 is emulated on most processors, and many times slower);
`trl best` precomputes the reference log-probs and does without gradient checkpointing. What is computed once before the
first step is counted for nobody.

Usage: python benchmarks/dpo_step.py [pairs in a batch] [steps] [rounds] [threads] [model ...]
"""

import gzip
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from recording import append, made

HERE = Path(__file__).parent
HH = HERE.parent.parent / "shared" / "data" / "preferences" / "hh_rlhf_harmless_base_test.jsonl.gz"
SIZES = {"8x256": (8, 256), "12x512": (12, 512)}
CONTENDERS = ("trl default", "trl best", "flipguard", "flipguard guarded")
VOCABULARY, SEED, TURN = 32_768, 7, "\n\nAssistant:"


def main(pairs: int = 8, steps: int = 6, rounds: int = 2, threads: int = 2, *models: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = prepare(folder, pairs * steps)
        for model in models or SIZES:
            for data in sources:
                work = {"folder": name, "model": model, "data": data, "pairs": pairs, "steps": steps}
                told: dict[str, list[Any]] = {contender: [] for contender in CONTENDERS}
                for _ in range(rounds):
                    for contender in CONTENDERS:
                        told[contender].append(alone({**work, "contender": contender, "threads": threads}))
                record(model, data, pairs, threads, told)


def alone(work: dict[str, Any]) -> Any:
    """One contender in a process of its own."""
    environment = {
        **os.environ,
        "FLIPGUARD_CACHE": f"{work['folder']}/cache",
        "OMP_NUM_THREADS": str(work["threads"]),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, __file__, "--contender", json.dumps(work)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((Path(work["folder"]) / "told.json").read_text())


def contend(work: dict[str, Any]) -> None:
    from transformers import TrainerCallback

    clocks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clocks.append((time.perf_counter(), time.process_time()))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clocks.append((time.perf_counter(), time.process_time()))

    trainer = (trl if work["contender"].startswith("trl") else flipguard)(work, Clock())
    trainer.train()
    spent = [(right[0] - left[0], right[1] - left[1]) for left, right in pairwise(clocks)][1:]
    told = {
        "wall": [wall for wall, _ in spent],
        "cpu": [cpu for _, cpu in spent],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }
    (Path(work["folder"]) / "told.json").write_text(json.dumps(told))


def settings(work: dict[str, Any]) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": work["pairs"],
        "max_steps": work["steps"],
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "seed": SEED,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
    }


def trl(work: dict[str, Any], clock: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    folder = Path(work["folder"])
    best = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
    chosen = {"bf16": False, "max_length": None, **(best if work["contender"] == "trl best" else {})}
    arguments = DPOConfig(output_dir=str(folder / "out"), disable_tqdm=True, **settings(work), **chosen)
    rows = [json.loads(line) for line in (folder / f"{work['data']}.jsonl").read_text().splitlines()]
    return DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder / work["model"], dtype="float32"),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / work["model"]),
        callbacks=[clock],
    )


def flipguard(work: dict[str, Any], clock: Any) -> Any:
    from flipguard.train.arguments import training_arguments
    from flipguard.train.recipe import load_recipe
    from flipguard.train.run import _preference

    folder = Path(work["folder"])
    recipe = folder / "recipe.json"
    data = {"train": str(folder / f"{work['data']}.jsonl"), "max_prompt_tokens": 2048, "max_completion_tokens": 2048}
    content = {"algorithm": "dpo", "model": str(folder / work["model"]), "data": data, "trainer": settings(work)}
    if work["contender"] == "flipguard":
        content["constraint"] = {"gate": "off"}
    recipe.write_text(json.dumps(content))
    loaded = load_recipe(recipe)
    trainer, _ = _preference(loaded, training_arguments(loaded, place=str(recipe)), str(recipe))
    trainer.add_callback(clock)
    return trainer


def prepare(folder: Path, count: int) -> list[str]:
    """Models, their tokenizer and `count` pairs of each kind; HH only where it lies beside the project."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    rng = random.Random(SEED)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(2000)]

    def say(low: int, high: int) -> str:
        return "".join(f" {word}" for word in rng.choices(words, k=rng.randint(low, high)))

    summaries = [{"prompt": say(300, 400), "chosen": say(30, 60), "rejected": say(30, 60)} for _ in range(count)]
    dialogues = read_hh() if HH.exists() else []
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    learned = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=["<pad>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [f" {word}" for word in words] * 2 + [row["prompt"] + row["chosen"] for row in dialogues]
    backend.train_from_iterator(texts, learned)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    for name, (layers, width) in SIZES.items():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=width * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=4096,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    kinds = {"summaries": summaries, "hh": rng.sample(dialogues, count) if dialogues else []}
    for kind, rows in kinds.items():
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if not rows:
            print(f"{kind}: left out, {HH.name} is not there")
    return [kind for kind, rows in kinds.items() if rows]


def read_hh() -> list[dict[str, str]]:
    """Prompts and answers of Anthropic's pairs, cut after the last turn that both share."""
    rows = []
    for line in gzip.decompress(HH.read_bytes()).decode().splitlines():
        pair = json.loads(line)
        shared = os.path.commonprefix([pair["chosen"], pair["rejected"]])  # noqa: RUF071 - of texts, letter by letter
        cut = shared.rfind(TURN) + len(TURN)
        prompt, chosen, rejected = shared[:cut], pair["chosen"][cut:], pair["rejected"][cut:]
        if TURN in shared and chosen.strip() and rejected.strip():
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def record(model: str, data: str, pairs: int, threads: int, told: dict[str, list[Any]]) -> None:
    wall, cpu = (
        {name: statistics.median(one for run in runs for one in run[clock]) for name, runs in told.items()}
        for clock in ("wall", "cpu")
    )
    peak = {name: statistics.median(run["peak"] for run in runs) for name, runs in told.items()}
    for name, runs in told.items():
        both = zip(runs[0]["losses"], told["trl default"][0]["losses"], strict=True)
        difference = max(abs(ours - theirs) for ours, theirs in both)
        row = {
            **made(),
            "threads": threads,
            "model": model,
            "data": data,
            "pairs": pairs,
            "contender": name,
            "steps_per_second": f"{1 / wall[name]:.4f}",
            "cpu_seconds": f"{cpu[name]:.2f}",
            "times_trl_default": f"{cpu['trl default'] / cpu[name]:.2f}",
            "times_trl_best": f"{cpu['trl best'] / cpu[name]:.2f}",
            "peak_mb": f"{peak[name]:.0f}",
            "share_of_trl_default": f"{peak[name] / peak['trl default']:.2f}",
            "loss_difference": "" if name == CONTENDERS[-1] else f"{difference:.1e}",
        }
        append(HERE / "dpo_step.csv", row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contender"]:
        contend(json.loads(sys.argv[2]))
    else:
        main(*(int(word) for word in sys.argv[1:5]), *sys.argv[5:])
