"""docs/trl.md does what it says: its script runs, guarded, as plain TRL again, and on two processes."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flipguard.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "trl.md").read_text(encoding="utf-8")
OPTIONS = shlex.split(
    "--max_steps 4 --learning_rate 1e-2 --logging_steps 1 --use_cpu --bf16 false --save_strategy no --seed 5"
)

TIDY = """
import runpy
from flipguard.processes import end

runpy.run_path("train.py", run_name="__main__")
end(0)  # left to the interpreter, gloo's threads now and then abort a process that is done
"""


def script():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    return code


def unguarded(code):
    """The script before: every changed line as its comment says it was."""
    lines = []
    for line in code.splitlines():
        if " import Guarded" in line:
            line = line.split("  # ")[1]
        lines.append(re.sub(r"Guarded(DPO\w+)(.*?)  # DPO\w+$", r"\1\2", line))
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path):
    """A tiny model and pairs, as the script expects them beside it."""
    words = [f"w{number}" for number in range(20)]
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes)).save_pretrained(
        tmp_path / "model"
    )
    chance = random.Random(0)
    for name in ("pairs", "held_out"):
        rows = [
            {key: " ".join(["", *chance.choices(words, k=4)]) for key in ("prompt", "chosen", "rejected")}
            for _ in range(24)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(folder, words):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "examples/s" not in line)
    return done.stdout


def test_the_line_in_the_readme_gives_trls_names():
    (line,) = re.findall(
        r"^\+(from flipguard\..*)$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    names = {}
    exec(line, names)  # the reader's own script
    from trl import DPOConfig, DPOTrainer

    assert issubclass(names["DPOConfig"], DPOConfig)
    assert issubclass(names["DPOTrainer"], DPOTrainer)


def test_the_script_differs_from_plain_trl_as_the_page_says(folder):
    code = unguarded(script())
    assert "flipguard" not in code
    assert "Guarded" not in code
    (folder / "train.py").write_text(code)
    out = run(folder, ["train.py", "--output_dir", "run", *OPTIONS])
    assert "'loss'" in out
    assert "flip" not in out


def test_the_script_runs_and_two_processes_train_to_the_same_weights(folder, capsys):
    """The term is a mean over the batch of all processes, as TRL's own loss is."""
    (folder / "train.py").write_text(script())
    guarded = [*OPTIONS, "--save_strategy", "steps", "--gamma", "0.5", "--eval_strategy", "steps", "--eval_steps", "4"]
    out = run(folder, ["train.py", "--output_dir", "one", *guarded, "--per_device_train_batch_size", "6"])
    assert "'flip/rate': '0'" in out
    assert "'eval_flip/rate'" in out
    (folder / "tidy.py").write_text(TIDY)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "tidy.py"]
    both = run(folder, [*launcher, "--output_dir", "two", *guarded, "--per_device_train_batch_size", "3"])
    rates = [[float(rate) for rate in re.findall(r"'flip/rate': '([^']*)'", text)] for text in (out, both)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-4)
    assert max(rates[0]) > 0, "nothing flipped, so nothing was compared"
    one, two = (load_file(folder / name / "model.safetensors") for name in ("one", "two"))
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-6
    assert main(["plot", str(folder / "one"), str(folder / "two"), "--out", str(folder / "curves.png")]) == 0
    assert "flip/rate, rewards/margins" in capsys.readouterr().out
