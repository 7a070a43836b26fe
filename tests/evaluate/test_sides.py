"""Two large files read at the same time: the same runs, and what is wrong is told in the order of the files."""

import json
import sys

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers, sides, workers
from flipguard.evaluate.intake import BadLines, Intake


def write(path, n, *, bad=(), ids=str):
    lines = [json.dumps({"id": ids(i), "score": i % 7 / 7, "completion": f"{path.stem} {i}"}) for i in range(n)]
    for row in bad:
        lines[row] = "{"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(sides, "LARGE", 1)
    monkeypatch.setattr(workers, "can_fork", lambda: sys.platform == "linux")
    return lambda **kinds: [write(tmp_path / f"{name}.jsonl", 300, **kinds.get(name, {})) for name in ("old", "new")]


@pytest.mark.parametrize("ids", [str, int, lambda i: f"a\nb{i}", lambda i: i if i % 2 else str(i)])
def test_runs_read_side_by_side_are_those_read_in_turn(files, ids):
    paths = files(old={"ids": ids}, new={"ids": ids})
    apart, in_turn = (importers.read_runs(*paths, Intake(processes=processes)) for processes in (2, 1))
    for (name, one), (other_name, other) in zip(apart, in_turn, strict=True):
        assert name == other_name == "scores"
        assert list(one.entries) == list(other.entries)
        assert one.entries == other.entries
        assert (one.name, one.files, one.metric) == (other.name, other.files, other.metric)


@pytest.mark.parametrize("limit", range(5))
def test_bad_lines_are_counted_over_both_files(files, limit):
    paths = files(old={"bad": [3, 5]}, new={"bad": [7, 9]})
    told = []
    for processes in (2, 1):
        bad = BadLines(limit)
        try:
            importers.read_runs(*paths, Intake(bad=bad, processes=processes))
        except DataError as error:
            told.append((str(error), bad.told))
        else:
            told.append(("", bad.told))
    assert told[0] == told[1]
    assert bool(told[0][0]) == (limit < 4)


def test_what_is_wrong_with_the_first_file_is_told_first(files):
    with pytest.raises(DataError, match=r"old\.jsonl:4: not valid JSON"):
        importers.read_runs(*files(old={"bad": [3]}, new={"bad": [0]}), Intake(processes=2))


def test_a_format_that_keeps_its_texts_is_read_in_turn(files, tmp_path, monkeypatch):
    monkeypatch.setattr(importers, "read_beside", None)
    judged = tmp_path / "judged.jsonl"
    judged.write_text('{"id": 1, "judge": "j", "old": {"score": 1}, "new": {"score": 0}}\n' * 2, encoding="utf-8")
    with pytest.raises(DataError):
        importers.read_runs(files()[0], judged, Intake(processes=2))
