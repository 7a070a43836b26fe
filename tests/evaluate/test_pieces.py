"""A large file read in pieces by several processes: the same rows, the same line numbers, no texts in memory."""

import json
import sys
import tracemalloc

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import pieces, vectors, workers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.importers import read
from flipguard.evaluate.intake import BadLines, Intake


def write(path, n, *, size=20, bad=None):
    rows = [
        json.dumps({"id": i, "score": i % 7 / 7, "prompt": f"{i} ü " * size, "completion": f"{path.stem} {i} " * size})
        for i in range(n)
    ]
    if bad is not None:
        rows[bad] = "{"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def in_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "SMALLEST", 1 << 14)
    monkeypatch.setattr(workers, "can_fork", lambda: sys.platform == "linux")


THREE = Intake(processes=3)


def test_pieces_read_by_other_processes_give_the_rows_of_one(tmp_path, monkeypatch):
    path = write(tmp_path / "old.jsonl", 500)
    whole = read(path, Intake(processes=1))[1]
    monkeypatch.setattr(pieces, "SMALLEST", 1 << 14)
    monkeypatch.setattr(workers, "can_fork", lambda: sys.platform == "linux")
    apart = read(path, THREE)[1]
    assert list(apart.entries) == list(whole.entries)
    assert apart.entries == whole.entries


@pytest.mark.usefixtures("in_pieces")
def test_a_bad_line_in_a_later_piece_has_its_number_in_the_file(tmp_path):
    path = write(tmp_path / "old.jsonl", 500, bad=490)
    with pytest.raises(DataError, match=r"old\.jsonl:491: not valid JSON"):
        read(path, THREE)
    bad = BadLines(1)
    assert len(read(path, Intake(bad=bad, processes=3))[1].entries) == 499
    assert [message.split(": ")[0] for message in bad.told] == [f"{path}:491"]


@pytest.mark.usefixtures("in_pieces")
def test_a_key_that_comes_twice_is_named_with_both_lines(tmp_path):
    path = write(tmp_path / "old.jsonl", 400)
    path.write_text(path.read_text(encoding="utf-8") + '{"id": 3, "score": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.jsonl:401: id 3, repeat 0 was there before, in line 4\."):
        read(path, THREE)


def test_texts_are_not_kept_in_memory(tmp_path):
    vectors.noticed(["loaded before"])
    old, new = (write(tmp_path / f"{name}.jsonl", 3_000, size=200) for name in ("old", "new"))
    tracemalloc.start()
    try:
        result = compare_files(old, new, Options())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    texts = old.stat().st_size + new.stat().st_size
    assert texts > 12_000_000 > peak
    assert result.pairs[7].new.completion == "new 7 " * 200
