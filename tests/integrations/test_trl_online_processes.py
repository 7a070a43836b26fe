"""Guarded RLOO on two real processes: one has flips where the other has none, and both make the same calls."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import datasets
import torch
from flipguard.integrations.trl import GuardedRLOOConfig, GuardedRLOOTrainer

def reward(prompts, completions, **columns):
    return [float(len(text.split())) if prompt != "w0 w1" else None for prompt, text in zip(prompts, completions)]

trainer = GuardedRLOOTrainer(
    "model",
    reward_funcs=reward,
    args=GuardedRLOOConfig(
        "out", gamma=0.5, flip_margin=0.0, num_generations=2, max_completion_length=8, max_steps=3, logging_steps=1,
        per_device_train_batch_size=2, learning_rate=1e-2, bf16=False, use_cpu=True, report_to="none",
        save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    ),
    train_dataset=datasets.Dataset.from_list([{"prompt": f"w{at} w{at + 1}"} for at in range(7)]),
)
trainer.train()
if trainer.accelerator.is_main_process:
    sums = [round(float(weight.double().sum()), 6) for weight in trainer.model.parameters()]
    with open("done.json", "w") as file:
        json.dump({"asked": len(trainer.guard.rollouts), "log": trainer.state.log_history, "sums": sums}, file)
torch.distributed.destroy_process_group()  # left to the exit, gloo's threads now and then abort a process that is done
"""


@pytest.mark.slow
def test_both_processes_know_all_answers_and_log_the_same_flips(tmp_path, make_model, tokenizer):
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "done.json").read_text())
    assert found["asked"] == 7
    steps = [entry for entry in found["log"] if "flip/rate" in entry]
    assert len(steps) == 3
    assert 0 < sum(entry["flip/rate"] for entry in steps) < 3
    assert max(entry["flip/constraint_loss"] for entry in steps) > 0
