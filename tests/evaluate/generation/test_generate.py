from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flipguard.errors import DataError, FlipGuardError, JudgeError
from flipguard.evaluate.engine import Answer, Engine
from flipguard.evaluate.generate import GenerateOptions, batch_seed, generate, plan
from flipguard.evaluate.prompts import read_prompts

HOSTILE = ["\ud800 lone", "\x00\x1b[31m\r\n", "x" * 100_000, "", "</script>\u2028", "漢字"]


class Parrot(Engine):
    """Says what it was asked, hostile and seeded; counts how often it was asked."""

    def __init__(self, settings, asked):
        self.settings, self.asked = settings, asked

    def identity(self):
        return {"model": self.settings.model}

    def load(self, questions):
        assert questions

        def answer(batch, seed):
            self.asked.append([question.id for question in batch])
            if self.settings.model == f"dies at {len(self.asked)}":
                raise KeyboardInterrupt
            return [
                Answer(f"{seed} {HOSTILE[len(str(question.prompt)) % len(HOSTILE)]}", "length") for question in batch
            ]

        return answer


@pytest.fixture
def parrot(monkeypatch):
    asked = []
    monkeypatch.setattr("flipguard.evaluate.generate.find_engine", lambda _, settings: Parrot(settings, asked))
    return asked


@pytest.fixture
def options(tmp_path, prompts):
    def make(**changes):
        chosen = {"model": "m", "prompts": prompts, "out": tmp_path / "out.jsonl", "temperature": 1.0, "batch_size": 4}
        return GenerateOptions(**{**chosen, **changes})

    return make


@pytest.mark.usefixtures("parrot")
def test_rows_are_the_prompt_rows_in_their_order_with_the_answers(options, make_prompts, read_rows):
    summary = generate(options(samples=2))
    rows = read_rows(summary.out)
    assert [(row["id"], row["repeat"]) for row in rows] == [(f"p{n}", repeat) for n in range(13) for repeat in (0, 1)]
    source = {row["id"]: row for row in make_prompts(13)}
    for row in rows:
        assert source[row["id"]].items() <= row.items()
        assert row.keys() - source[row["id"]].keys() == {"completion", "model", "finish_reason", "repeat"}
    assert (summary.rows, summary.prompts, summary.cut_off, summary.already) == (26, 13, 26, False)


@pytest.mark.usefixtures("parrot")
def test_hostile_answers_survive_the_way_to_the_file_and_back(options, write_rows, read_rows, tmp_path):
    rows = [{"id": number, "prompt": "x" * (number + 1)} for number in range(len(HOSTILE))]
    summary = generate(options(prompts=write_rows(tmp_path / "hostile.jsonl", rows), batch_size=9))
    said = {row["completion"].split(" ", 1)[1] for row in read_rows(summary.out)}
    assert said == {text.replace("\ud800", "\ufffd") for text in HOSTILE}


def test_batches_go_from_long_prompts_to_short_ones(options, parrot):
    lengths = {item.row["id"]: len(item.row["prompt"]) for item in read_prompts(options().prompts)}
    generate(options())
    asked = [lengths[identifier] for batch in parrot for identifier in batch]
    assert asked == sorted(asked, reverse=True)
    assert [len(batch) for batch in parrot] == [4, 4, 4, 1]


def test_every_row_is_planned_once():
    units = plan([5, 1, 9, 9, 2], samples=3, batch_size=4)
    assert sorted(row for unit in units for row in unit) == list(range(15))


def test_no_two_batches_of_neighbouring_seeds_share_a_seed():
    seeds = {batch_seed(seed, number) for seed in range(50) for number in range(50)}
    assert len(seeds) == 2500


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(options, parrot, tmp_path):
    model = "dies at 3"
    with pytest.raises(KeyboardInterrupt):
        generate(options(model=model))
    resumed = generate(options(model=model))
    assert (resumed.resumed, resumed.already) == (8, False)
    parrot[:] = [[]] * 9
    unbroken = generate(options(model=model, out=tmp_path / "unbroken.jsonl"))
    assert resumed.out.read_bytes() == unbroken.out.read_bytes()


def test_a_second_call_has_nothing_to_do(options, parrot):
    first = generate(options())
    calls = len(parrot)
    second = generate(options())
    assert second.already
    assert (second.rows, second.cut_off) == (first.rows, first.cut_off)
    assert len(parrot) == calls


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"model": "other"}, "model was 'm'"), ({"seed": 1}, "seed was 0"), ({"batch_size": 5}, "batch_size was 4")],
)
@pytest.mark.usefixtures("parrot")
def test_other_settings_do_not_continue_the_file(options, changes, named):
    generate(options())
    with pytest.raises(DataError, match=named):
        generate(options(**changes))


@pytest.mark.usefixtures("parrot")
def test_other_prompts_do_not_continue_the_file(options, write_rows, tmp_path):
    generate(options())
    other = write_rows(tmp_path / "other.jsonl", [{"id": 1, "prompt": "w1"}])
    with pytest.raises(DataError, match="prompts has other content"):
        generate(options(prompts=other))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens: 0 is too small"),
        ({"samples": 0}, "--samples: 0"),
        ({"batch_size": 0}, "--batch-size: 0"),
        ({"top_k": -1}, "--top-k: -1"),
        ({"temperature": -0.5}, "--temperature: -0.5"),
        ({"temperature": float("nan")}, "--temperature: nan"),
        ({"top_p": 0.0}, "--top-p: 0.0"),
        ({"top_p": 1.5}, "--top-p: 1.5"),
        ({"samples": 2, "temperature": 0.0}, "greedy answers are all the same"),
        ({"dtype": "float23"}, "--dtype: 'float23' is unknown. Did you mean 'float32'"),
        ({"template": "on"}, "--template: 'on' is unknown"),
        ({"engine": "transformer"}, "no engine is called 'transformer'. Did you mean 'transformers'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_the_way_out(options, changes, named):
    with pytest.raises(FlipGuardError) as caught:
        generate(options(**changes))
    assert named in str(caught.value)


def test_the_prompts_are_never_overwritten(options, prompts):
    before = prompts.read_bytes()
    with pytest.raises(FlipGuardError, match="is the prompts file"):
        generate(options(out=prompts, overwrite=True))
    assert prompts.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b'{"prompt": "a"}', ":1: no id"),
        (b'{"id": true, "prompt": "a"}', ":1: id True is neither"),
        (b'{"id": 1.5, "prompt": "a"}', ":1: id 1.5 is neither"),
        (b'{"id": 1, "question": "a"}', ":1: id 1 has no prompt. Found: 'id', 'question'"),
        (b'{"id": 1, "prompt": " "}', ":1: id 1 has an empty prompt"),
        (b'{"id": 1, "prompt": []}', ":1: prompt [] is neither"),
        (b'{"id": 1, "prompt": 7}', ":1: prompt 7 is neither"),
        (b'{"id": 1, "prompt": ["a"]}', ":1: message 'a' is not an object"),
        (b'{"id": 1, "prompt": [{"role": "user"}]}', "has no text under 'content'"),
        (b'{"id": 1, "prompt": "a"}\n\n{"id": 1, "prompt": "b"}', ":3: id 1 was already used at"),
        (b'{"id": 1, "prompt": "a"', ":1: not valid JSON"),
        (b"\n", ": no rows"),
    ],
)
def test_a_bad_prompt_row_is_named_with_its_file_and_line(options, tmp_path, line, named):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(line)
    with pytest.raises(DataError) as caught:
        generate(options(prompts=bad))
    assert named in str(caught.value)
    assert str(bad) in str(caught.value)


@pytest.mark.usefixtures("parrot")
def test_a_number_and_its_digits_are_two_ids(options, write_rows, tmp_path):
    rows = [{"id": 1, "prompt": "a"}, {"id": "1", "prompt": "a"}]
    assert generate(options(prompts=write_rows(tmp_path / "ids.jsonl", rows))).rows == 2


def test_an_engine_of_ones_own_is_named_by_its_function(options, tmp_path, monkeypatch, read_rows):
    (tmp_path / "my_engine.py").write_text(
        "from flipguard.evaluate.engine import Answer, Engine\n"
        "class Echo(Engine):\n"
        "    def identity(self):\n"
        "        return {}\n"
        "    def load(self, questions):\n"
        "        return lambda batch, seed: [Answer(q.prompt, 'stop') for q in batch]\n"
        "def echo(settings):\n"
        "    return Echo()\n"
        "def wrong(settings):\n"
        "    return 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_engine", raising=False)
    summary = generate(options(engine="my_engine:echo"))
    assert all(row["completion"] == row["prompt"] for row in read_rows(summary.out))
    assert summary.stopped == 13
    with pytest.raises(FlipGuardError, match="made a int, not a"):
        generate(options(engine="my_engine:wrong"))
    with pytest.raises(JudgeError, match="has no 'ekho'"):
        generate(options(engine="my_engine:ekho"))


def test_a_real_model_answers_the_same_in_batches_of_any_size(options, model, read_rows, tmp_path):
    """In float32 and greedy; samples, and low precision, depend on who shares the batch."""
    common = {"model": str(model), "temperature": 0.0, "max_new_tokens": 6, "dtype": "float32", "device": "cpu"}
    few = generate(options(**common, batch_size=3))
    many = generate(options(**common, batch_size=50, out=tmp_path / "many.jsonl"))
    assert read_rows(few.out) == read_rows(many.out)


def test_the_second_sample_differs_from_the_first(options, model, read_rows):
    common = {"model": str(model), "max_new_tokens": 6, "device": "cpu"}
    rows = read_rows(generate(options(**common, samples=2)).out)
    pairs = [(rows[at]["completion"], rows[at + 1]["completion"]) for at in range(0, 26, 2)]
    assert sum(first != second for first, second in pairs) > 9


def test_neither_torch_nor_transformers_is_imported_before_there_is_work():
    code = (
        "import sys, flipguard.evaluate.generate, flipguard.evaluate.judge\n"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'tqdm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SCRIPT = """
import sys
from pathlib import Path
from flipguard.evaluate.generate import GenerateOptions, generate
model, prompts, out = sys.argv[1:]
print(generate(GenerateOptions(model=model, prompts=Path(prompts), out=Path(out), max_new_tokens=24, temperature=1.0,
                               samples=2, batch_size=3, device="cpu")))
"""


@pytest.mark.slow
def test_a_process_killed_in_the_middle_goes_on_to_the_same_bytes(model, tmp_path, write_rows, make_prompts):
    prompts = write_rows(tmp_path / "many.jsonl", make_prompts(60))
    out, unbroken = tmp_path / "killed.jsonl", tmp_path / "unbroken.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def command(target):
        return [sys.executable, "-W", "error", "-c", SCRIPT, str(model), str(prompts), str(target)]

    kills = 0
    for wanted in (1, 20_000):
        with subprocess.Popen(command(out), env=environment, stdout=subprocess.DEVNULL) as process:
            _wait_for(out.with_name("killed.jsonl.partial"), wanted, process)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        assert not out.exists()
    assert kills == 2
    done = subprocess.run(command(out), env=environment, check=True, capture_output=True, text=True)
    assert "resumed=0" not in done.stdout
    subprocess.run(command(unbroken), env=environment, check=True, capture_output=True)
    assert out.read_bytes() == unbroken.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def _wait_for(path: Path, size: int, process: subprocess.Popen) -> None:
    while process.poll() is None:
        if path.exists() and path.stat().st_size >= size:
            return
        time.sleep(0.002)
    pytest.fail("it ended before it could be killed")
