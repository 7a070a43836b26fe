"""Very many flips, written beside the statistics: the same file, or none."""

import gc
import json
import sys
from functools import partial
from pathlib import Path

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import flipfile, workers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.results import write_results


@pytest.fixture
def files(tmp_path):
    for name, shift in (("old", 0.0), ("new", 0.3)):
        rows = [
            {"id": i, "score": (i * 7 % 10) / 10 - shift * (i % 3), "completion": f"{name} {i} é", "prompt": f"p {i}"}
            for i in range(400)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path / "old.jsonl", tmp_path / "new.jsonl"


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(flipfile, "MANY", 10)
    monkeypatch.setattr(flipfile, "processors", lambda: 2)


@pytest.mark.parametrize("forked", [True, False])
@pytest.mark.usefixtures("many")
def test_flips_written_by_another_process_are_those_written_here(files, tmp_path, monkeypatch, forked):
    monkeypatch.setattr(workers, "can_fork", lambda: forked and sys.platform == "linux")
    apart = compare_files(*files, Options(), folder=tmp_path / "apart")
    here = compare_files(*files, Options())
    assert apart.draft is not None
    assert here.draft is None
    write_results(tmp_path / "apart", apart)
    write_results(tmp_path / "here", here)
    one, other = ((tmp_path / name / "flips.jsonl") for name in ("apart", "here"))
    assert one.read_bytes() == other.read_bytes() != b""
    assert one.stat().st_mode == other.stat().st_mode
    assert {path.name for path in one.parent.iterdir()} == {path.name for path in other.parent.iterdir()}


@pytest.mark.usefixtures("many")
def test_a_draft_nobody_asks_for_vanishes(files, tmp_path):
    result = compare_files(*files, Options(), folder=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [result.draft.temporary]
    del result
    gc.collect()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("many")
def test_a_folder_that_cannot_be_made_is_told_before_the_statistics(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        compare_files(*files, Options(), folder=tmp_path / "file" / "out")


@pytest.mark.usefixtures("many")
def test_a_full_disk_leaves_the_old_files(files, tmp_path, monkeypatch):
    write_results(tmp_path / "out", compare_files(*files, Options()))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    result = compare_files(*files, Options(margin=0.2), folder=tmp_path / "out")
    full = partial(
        flipfile.write_flips, Path("/dev/full"), tmp_path / "out" / "flips.jsonl", flipfile._Flips(result.pairs), 0.2
    )
    monkeypatch.setattr(flipfile.Worker, "result", lambda _: full())
    with pytest.raises(DataError, match=r"flips\.jsonl: cannot be written \(No space left on device\)"):
        write_results(tmp_path / "out", result)
    del result
    gc.collect()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
