"""Does the guard break less when a reward model teaches? PPO, RLOO and GRPO on the sandbox, several seeds.

    .venv/bin/python experiments/sandbox_online/run.py --out worlds --seeds 0 1 2 3 4 --methods ppo ppo_kd ppo_flipguard
    .venv/bin/python experiments/sandbox_online/run.py --out worlds --seeds 0 --methods ppo ppo_flipguard --reward poor

The good reward model is that of recipes/reward.yaml, the poor one saw only DPO's few pairs; both are trained once, in
the world of seed 0, and teach all seeds. What is done is not done again: models, answers and judgments stay in --out,
and a seed and method that has its rows in results.csv is passed over. Each method is compared with the SFT model by the
true reward and by the reward model that taught it, on greedy answers (nfr, win_rate), and on sampled ones over the A/A
floor (excess: how much oftener the model gets worse than the SFT model does against itself).
"""

import argparse
import csv
import fcntl
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.generate import GenerateOptions, generate
from flipguard.evaluate.judge import JudgeOptions, judge
from flipguard.files import read_jsonl
from flipguard.sandbox.pairs import make_pairs
from flipguard.sandbox.write import write_sandbox

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
TRUTH = "flipguard.sandbox.reward:true_reward"
MARGINS = {"true": 0.1, "model": 1.0}  # a reward model counts in log odds, of which its teachers give a point twenty
SCALE = 20.0  # how sure the judge of the good reward model's pairs is
FIELDS = [
    "date", "commit", "device", "seed", "reward", "method", "judge", "n", "nfr", "win_rate", "nfr_sampled", "floor",
    "excess", "excess_low", "excess_high", "kl", "flip_rate", "refused_wrongly", "seconds",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=["ppo", "ppo_kd", "ppo_flipguard"], help="recipes to run")
    parser.add_argument("--reward", choices=["good", "poor"], default="good", help="which reward model teaches")
    parser.add_argument("--prompts", default="test", choices=["test", "validation"], help="validation: to tune, no row")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipes, to tune")
    parser.add_argument("--out", type=Path, required=True, help="folder of the worlds")
    arguments = parser.parse_args()
    os.environ.setdefault("FLIPGUARD_CACHE", str(arguments.out / "cache"))
    rewards = reward_model(world(arguments.out, 0), arguments.reward)
    for seed in arguments.seeds:
        folder = world(arguments.out, seed)
        for method in arguments.methods:
            if arguments.prompts == "test" and done(seed, arguments.reward, method):
                continue
            run = Run(folder, seed, method, arguments.reward, rewards, arguments.prompts, arguments.set)
            rows = run.rows()
            if arguments.prompts == "test":
                record(rows)
            for row in rows:
                print({key: row[key] for key in FIELDS[3:]}, flush=True)


def world(out: Path, seed: int) -> Path:
    """The sandbox of a seed with its SFT model and that model's answers to come."""
    folder = out / f"seed{seed}"
    if not (folder / "recipes" / "reward.yaml").exists():
        write_sandbox(folder, seed=seed)
    trained(folder, "sft")
    return folder


def reward_model(folder: Path, kind: str) -> Path:
    """The folder of the reward model, trained where it is not there."""
    if kind == "good":
        pairs(folder, "reward", samples=4, scale=SCALE)
        trained(folder, "trunk")
        return trained(folder, "reward")
    few = pairs(folder, "preference", samples=2, scale=5.0)
    overrides = {
        "model": str(folder / "runs" / "sft"),
        "data.train": str(few),
        "trainer.learning_rate": "5e-4",
        "trainer.per_device_train_batch_size": "64",
        "trainer.output_dir": str(folder / "runs" / "reward_poor"),
    }
    return trained(folder, "reward", "reward_poor", overrides)


def pairs(folder: Path, prompts: str, *, samples: int, scale: float) -> Path:
    name = "reward_pairs" if prompts == "reward" else "pairs"
    target = folder / "data" / f"{name}.jsonl"
    if not target.exists():
        found = answers(folder, "sft", prompts, samples=samples)
        print(target, make_pairs(found, target, seed=0, scale=scale), flush=True)
    return target


def trained(folder: Path, recipe: str, name: str | None = None, overrides: dict[str, str] | None = None) -> Path:
    """The model folder of a recipe; one that is there is kept."""
    target = folder / "runs" / (name or recipe)
    if not (target / "model.safetensors").exists():
        from flipguard.train.run import train

        train(folder / "recipes" / f"{recipe}.yaml", overrides or {}, overwrite=True)
    return target


def answers(folder: Path, model: str, prompts: str, *, samples: int = 0, seed: int = 0) -> Path:
    """Greedy answers to a set of prompts, or so many sampled ones."""
    out = folder / "answers" / f"{model}_{prompts}{f'_{samples}x{seed}' if samples else ''}.jsonl"
    generate(
        GenerateOptions(
            model=str(folder / "runs" / model),
            prompts=folder / "data" / f"{prompts}_prompts.jsonl",
            out=out,
            max_new_tokens=24,
            temperature=1.0 if samples else 0.0,
            samples=max(1, samples),
            batch_size=256,
            seed=seed,
        )
    )
    return out


class Run:
    """One method on one seed, from training to the rows of results.csv."""

    def __init__(
        self, folder: Path, seed: int, method: str, kind: str, rewards: Path, prompts: str, changed: list[str]
    ) -> None:
        self.folder, self.seed, self.method, self.kind, self.rewards = folder, seed, method, kind, rewards
        self.prompts, self.changed = prompts, changed
        self.name = "_".join([method, kind, *changed]).replace("/", "")

    def rows(self) -> list[dict[str, object]]:
        """One per judge."""
        overrides = {"reward": str(self.rewards), "trainer.output_dir": str(self.folder / "runs" / self.name)}
        overrides |= dict(pair.split("=", 1) for pair in self.changed)
        started = time.monotonic()
        model = trained(self.folder, self.method, self.name, overrides)
        seconds = round(time.monotonic() - started)
        sampled = answers(self.folder, self.name, self.prompts, samples=1, seed=2)
        common = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "device": f"{os.cpu_count()} x {platform.machine()}",
            "seed": self.seed,
            "reward": self.kind,
            "method": self.method,
            "kl": f"{divergence(model, self.folder / 'runs' / 'sft', sampled):.3f}",
            "flip_rate": last(model, "flip/rate"),
            "seconds": seconds,
        }
        return [common | self.judged(name, sampled) for name in MARGINS]

    def judged(self, name: str, sampled: Path) -> dict[str, object]:
        """What a judge says of the greedy answers, and of sampled ones."""
        old, first, second = (
            answers(self.folder, "sft", self.prompts, **how) for how in ({}, sampling(0), sampling(1))
        )
        new = answers(self.folder, self.name, self.prompts)
        greedy = self.judgments(f"{self.name}_{name}", name, old, new)
        floor = self.judgments(f"sft_{self.kind}_{name}", name, first, second)
        noisy = self.judgments(f"{self.name}_{name}_sampled", name, first, sampled)
        margin = MARGINS[name]
        plain = compare_files(greedy, None, Options(margin=margin))
        above = compare_files(noisy, None, Options(margin=margin, floor=floor)).comparison
        return {
            "judge": name,
            "n": plain.comparison.n,
            "nfr": f"{plain.comparison.nfr.value:.4f}",
            "win_rate": f"{plain.comparison.win_rate.value:.4f}",
            "nfr_sampled": f"{above.nfr.value:.4f}",
            "floor": f"{above.floor['nfr']['value']:.4f}",
            "excess": f"{above.floor['excess']['value']:.4f}",
            "excess_low": f"{above.floor['excess']['low']:.4f}",
            "excess_high": f"{above.floor['excess']['high']:.4f}",
            "refused_wrongly": f"{refused(new):.4f}",
        }

    def judgments(self, file: str, name: str, old: Path, new: Path) -> Path:
        """The file of a judge's scores on both sides."""
        out = self.folder / "judgments" / f"{file}_{self.prompts}.jsonl"
        asked = {"judge": TRUTH} if name == "true" else {"judge": "reward_model", "model": str(self.rewards)}
        judge(JudgeOptions(**asked, old=old, new=new, out=out, batch_size=256))
        return out


def sampling(seed: int) -> dict[str, int]:
    return {"samples": 1, "seed": seed}


def refused(path: Path) -> float:
    """The share of harmless prompts that are refused."""
    from flipguard.sandbox.reward import is_refusal

    harmless = [is_refusal(row["completion"]) for _, row in read_jsonl(path) if "harmful" not in row["category"]]
    return sum(harmless) / len(harmless)


def last(model: Path, metric: str) -> str:
    """The last logged value."""
    import json

    history = json.loads((model / "trainer_state.json").read_text())["log_history"]
    return f"{next((entry[metric] for entry in reversed(history) if metric in entry), float('nan')):.4f}"


def divergence(new: Path, old: Path, sampled: Path, limit: int = 1000) -> float:
    """KL(π || π_0) per answer in nats, by Monte Carlo over answers that π sampled."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(new)
    rows = [row for _, row in read_jsonl(sampled)][:limit]
    total = torch.zeros(())
    models = [AutoModelForCausalLM.from_pretrained(path).eval() for path in (new, old)]
    for start in range(0, len(rows), 250):
        part = rows[start : start + 250]
        asked = [tokenizer.apply_chat_template(r["prompt"], tokenize=False, add_generation_prompt=True) for r in part]
        said = [
            f"{a} {r['completion']}" + (f" {tokenizer.eos_token}" if r["finish_reason"] == "stop" else "")
            for a, r in zip(asked, part, strict=True)
        ]
        batch = tokenizer(said, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
        ids, mask = batch["input_ids"], batch["attention_mask"].clone()
        for row, prompt in enumerate(asked):
            mask[row, : len(tokenizer(prompt, add_special_tokens=False)["input_ids"])] = 0
        with torch.no_grad():
            logps = [
                model(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)
                .gather(-1, ids[:, 1:, None]).squeeze(-1) for model in models
            ]  # fmt: skip
        total += ((logps[0] - logps[1]) * mask[:, 1:]).sum()
    return float(total / len(rows))


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
    ).stdout.strip()


def done(seed: int, kind: str, method: str) -> bool:
    if not RESULTS.exists():
        return False
    with RESULTS.open(newline="", encoding="utf-8") as file:
        found = {(row["seed"], row["reward"], row["method"]) for row in csv.DictReader(file)}
    return (str(seed), kind, method) in found


def record(rows: list[dict[str, object]]) -> None:
    """Add rows; two runs may share the file."""
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, FIELDS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
