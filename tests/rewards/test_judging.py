"""`flipguard judge --judge reward_model`, as it is typed."""

import subprocess
import sys

import orjson
import pytest

CHAT = "<s> {% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' </s> ' }}{% endfor %}"


@pytest.fixture
def judge(tmp_path):
    rows = [{"id": at, "prompt": f"w{at}", "completion": "w1 w2", "finish_reason": "stop"} for at in range(3)]
    for name, completion in (("old", "w1 w2"), ("new", "w3 " * 70)):
        text = b"\n".join(orjson.dumps(row | {"completion": completion, "model": name}) for row in rows)
        (tmp_path / f"{name}.jsonl").write_bytes(text + b"\n")

    def run(*options):
        words = ["judge", "--old", "old.jsonl", "--new", "new.jsonl", "--out", "judgments.jsonl", *options]
        command = [sys.executable, "-m", "flipguard", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_a_reward_model_judges_both_sides_and_tells_what_it_could_not_read(judge, save_classifier, tmp_path):
    save_classifier("reward", chat=CHAT)
    done = judge("--judge", "reward_model", "--model", "reward")
    assert done.returncode == 0, done.stderr
    assert "reward_model reward: 3 of 6 texts cut at 64 tokens" in done.stderr
    rows = [orjson.loads(line) for line in (tmp_path / "judgments.jsonl").read_bytes().splitlines()]
    assert {row["judge"] for row in rows} == {"reward_model reward"}
    assert all(isinstance(row[side]["score"], float) for row in rows for side in ("old", "new"))
    save_classifier("reward", chat=CHAT, pad="<pad>")  # another tokenizer: another judge
    again = judge("--judge", "reward_model", "--model", "reward")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge", "reward_model"], "which? Name a model folder, hub id or URL with --model"),
        (["--judge", "exact_match", "--model", "m"], "exact_match asks no model"),
        (["--judge", "my:function", "--model", "m"], "a function asks no model"),
        (["--judge", "reward_model", "--model", "./nowhere"], "no such folder"),
        (["--judge", "reward_model", "--model", "http://127.0.0.1:9/"], "Is the server up?"),
    ],
)
def test_what_cannot_judge_is_told_in_one_line(judge, options, said):
    done = judge(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
