"""A source is tokenized once; what is cached is never stale, torn or another's."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from flipguard.errors import DataError
from flipguard.train import intake, tokenizing
from flipguard.train.caches import cache_folder
from flipguard.train.data import load_pairs
from flipguard.train.dataspec import DataSpec


def fill(path, count, seed=0):
    rng = random.Random(seed)

    def say(most):
        return "".join(f" w{rng.randrange(40)}" for _ in range(rng.randint(1, most)))

    rows = [{"prompt": say(9), "chosen": say(20), "rejected": say(20)} for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(source, tokenizer, **said):
    return load_pairs(source, DataSpec(train=source, **said), tokenizer, None)


def content(data):
    return [(row.place, row.prompt, row.completions) for row in data.rows]


def tables():
    return sorted(path.parent for path in cache_folder().rglob("told.json"))


@pytest.fixture
def reads(monkeypatch):
    """How often a source is read."""
    counted = []
    original = intake.read_parts
    monkeypatch.setattr(intake, "read_parts", lambda *said: counted.append(1) or original(*said))
    return counted


def test_the_second_time_nothing_is_tokenized_and_limits_ask_for_nothing_new(tmp_path, tokenizer, reads):
    source = fill(tmp_path / "d.jsonl", 50)
    first = load(source, tokenizer)
    assert content(load(source, tokenizer)) == content(first)
    assert len(load(source, tokenizer, max_completion_tokens=8).rows) < 50
    assert len(reads) == 1


def test_other_bytes_another_template_or_kind_are_read_anew(tmp_path, tokenizer, reads, monkeypatch):
    source = fill(tmp_path / "d.jsonl", 5)
    load(source, tokenizer)
    fill(tmp_path / "d.jsonl", 5, seed=1)
    load(source, tokenizer)
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template + "{# other #}")
    load(source, tokenizer)
    load(source, tokenizer, chat=True)
    assert len(reads) == 4


@pytest.mark.parametrize("damage", ["tokens.bin", "columns.npy", "told.json"])
def test_a_damaged_table_is_made_anew(tmp_path, tokenizer, reads, damage):
    source = fill(tmp_path / "d.jsonl", 20)
    first = content(load(source, tokenizer))
    (folder,) = tables()
    torn = (folder / damage).read_bytes()[:-9]
    (folder / damage).unlink()
    (folder / damage).write_bytes(torn)
    assert content(load(source, tokenizer)) == first
    assert len(reads) == 2
    assert tables() == [folder]


@pytest.mark.parametrize("damage", ["tokens.bin", "columns.npy", "told.json"])
def test_one_bit_that_turned_over_is_noticed(tmp_path, tokenizer, reads, damage):
    source = fill(tmp_path / "d.jsonl", 20)
    first = content(load(source, tokenizer))
    (folder,) = tables()
    turned = bytearray((folder / damage).read_bytes())
    turned[-len(turned) // 3] ^= 1
    (folder / damage).unlink()
    (folder / damage).write_bytes(turned)
    assert content(load(source, tokenizer)) == first
    assert len(reads) == 2


def test_processes_give_what_one_gives(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizing, "CHUNK", 8)
    source = fill(tmp_path / "d.jsonl", 200)
    alone = content(load(source, tokenizer, workers=1))
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "other"))
    assert content(load(source, tokenizer, workers=3)) == alone
    assert len(alone) == 200


def test_a_killed_process_is_one_clear_line_and_leaves_no_table(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizing, "CHUNK", 8)
    monkeypatch.setattr(tokenizing.Reader, "__call__", lambda *_said: os.kill(os.getpid(), signal.SIGKILL))
    source = fill(tmp_path / "d.jsonl", 200)
    with pytest.raises(DataError, match="a process that tokenizes was killed, perhaps for memory"):
        load(source, tokenizer, workers=2)
    assert tables() == []
    assert not list((cache_folder() / "tokens").iterdir())


def test_rows_are_a_sequence_over_all_sources(tmp_path, tokenizer):
    paths = [fill(tmp_path / f"{name}.jsonl", 3, seed=name) for name in (1, 2)]
    spec = DataSpec(train=paths)
    rows = load_pairs(spec.train, spec, tokenizer, None).rows
    assert [row.place for row in rows] == [f"{path}:{line}" for path in paths for line in (1, 2, 3)]
    assert rows[-1] == rows[5] == list(rows)[5]
    assert rows[1:3] == [rows[1], rows[2]]
    assert rows.lengths.tolist() == [row.length for row in rows]
    with pytest.raises(IndexError):
        rows[6]


@pytest.mark.slow
def test_a_kill_while_reading_leaves_no_table(tmp_path, model_folder):
    source = fill(tmp_path / "d.jsonl", 60_000)
    code = (
        "import sys; from transformers import AutoTokenizer; from flipguard.train.data import load_pairs;"
        "from flipguard.train.dataspec import DataSpec; print('go', flush=True);"
        "load_pairs(sys.argv[1], DataSpec(train=sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[2]), None)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, source, str(model_folder)], stdout=subprocess.PIPE, start_new_session=True
    )
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while not list((cache_folder() / "tokens").glob(".*/tokens.bin")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert tables() == []
