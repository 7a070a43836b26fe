"""Guarded RLOO and PPO on two real processes: one has flips where the other has none, and both make the same calls."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import sys
import datasets
from accelerate.utils import gather_object
from flipguard.integrations.trl import GuardedPPOConfig, GuardedPPOTrainer, GuardedRLOOConfig, GuardedRLOOTrainer
from flipguard.processes import end

KINDS = {"rloo": (GuardedRLOOConfig, GuardedRLOOTrainer, {"num_generations": 2}),
         "ppo": (GuardedPPOConfig, GuardedPPOTrainer, {"critic_learning_rate": 1e-2, "normalize_advantages": True})}
Config, Trainer, own = KINDS[sys.argv[1]]

def reward(prompts, completions, **columns):
    return [float(len(text.split())) if prompt != "w0 w1" else None for prompt, text in zip(prompts, completions)]

trainer = Trainer(
    "model",
    reward_funcs=reward,
    args=Config(
        "out", gamma=0.5, flip_margin=0.0, max_completion_length=8, max_steps=3, logging_steps=1, **own,
        per_device_train_batch_size=2, learning_rate=1e-2, bf16=False, use_cpu=True, report_to="none",
        save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    ),
    train_dataset=datasets.Dataset.from_list([{"prompt": f"w{at} w{at + 1}"} for at in range(7)]),
)
trainer.train()
trained = [*trainer.model.parameters(), *(trainer.critic.parameters() if sys.argv[1] == "ppo" else [])]
sums = gather_object([[float(weight.detach().double().sum()) for weight in trained]])
if trainer.accelerator.is_main_process:
    with open("done.json", "w") as file:
        json.dump({"asked": len(trainer.guard.rollouts), "log": trainer.state.log_history, "sums": sums}, file)
end(0)  # left to the interpreter, gloo's threads now and then abort a process that is done
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rloo", "ppo"])
def test_both_processes_know_all_answers_and_end_in_the_same_weights(tmp_path, make_model, tokenizer, kind):
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "done.json").read_text())
    assert found["asked"] == 7
    assert found["sums"][0] == found["sums"][1]
    steps = [entry for entry in found["log"] if "flip/rate" in entry]
    assert len(steps) == 3
    assert 0 < sum(entry["flip/rate"] for entry in steps) < 3
    assert max(entry["flip/constraint_loss"] for entry in steps) > 0
