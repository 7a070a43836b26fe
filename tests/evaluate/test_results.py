"""The files a comparison leaves behind."""

import os
import signal
import subprocess
import sys
from xml.etree import ElementTree

import orjson
import pytest

from flipguard.cli import main
from flipguard.errors import DataError
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.flipfile import flip_rows
from flipguard.evaluate.results import write_results


@pytest.fixture
def result(write):
    old = [{"id": i, "score": 1, "completion": f"old {i}", "prompt": f"p {i}", "category": "c"} for i in range(4)]
    new = [{"id": i, "score": s, "completion": f"new {i}"} for i, s in enumerate([0.5, 0.0, 2.0, 0.25])]
    return compare_files(write("old.jsonl", old), write("new.jsonl", new), Options(margin=0.25, max_nfr=0.05))


def test_all_files_of_the_contract_are_written_and_nothing_else(result, tmp_path):
    written = write_results(tmp_path / "report", result)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "report").iterdir()}
    assert {path.name for path in written} == {
        "comparison.json",
        "flips.jsonl",
        "junit.xml",
        "report.html",
        "report.md",
    }
    ElementTree.parse(tmp_path / "report" / "junit.xml")


def test_comparison_json_is_the_comparison(result, tmp_path):
    write_results(tmp_path, result)
    document = orjson.loads((tmp_path / "comparison.json").read_bytes())
    assert document["schema"] == "flipguard.comparison/1"
    assert document["negative_flips"] == 3
    assert document["verdict"] == "fail"
    assert document == orjson.loads(orjson.dumps(result.comparison.to_json()))


def test_flips_are_the_negative_ones_worst_first_with_both_answers(result):
    rows = list(flip_rows(result))
    assert [(row["id"], row["severity"]) for row in rows] == [(1, 0.75), (3, 0.5), (0, 0.25)]
    assert rows[0] == {
        "id": 1,
        "repeat": 0,
        "severity": 0.75,
        "change": -1.0,
        "prompt": "p 1",
        "category": ["c"],
        "cluster": None,
        "old": {"score": 1.0, "completion": "old 1"},
        "new": {"score": 0.0, "completion": "new 1"},
        "verdicts": [],
    }


def test_results_are_written_whatever_the_verdict(write, tmp_path):
    old, new = write("old.jsonl", [{"id": 1, "score": 1}]), write("new.jsonl", [{"id": 2, "score": 1}])
    result = compare_files(old, new, Options(max_nfr=0.05))
    assert result.comparison.verdict == "invalid"
    assert len(write_results(tmp_path / "report", result)) == 5


def test_a_result_folder_that_is_a_file_is_one_clear_error(result, write):
    with pytest.raises(DataError, match=r"cannot be written .*Choose a folder"):
        write_results(write("report", b""), result)


LITTLE_ROOM = """
import resource, sys
from flipguard.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_is_full_before_the_last_file_leaves_all_old_ones(write, tmp_path):
    """The page is the last and the largest: by then the numbers are written, but not in their place."""
    rows = [{"id": i, "score": i % 7} for i in range(50)]
    old, new = write("old.jsonl", rows), write("new.jsonl", [{**row, "score": 1} for row in rows])
    out = tmp_path / "report"
    assert main(["compare", str(old), str(old), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    words = [sys.executable, "-c", LITTLE_ROOM, "compare", str(old), str(new), "--out", str(out)]
    ended = subprocess.run(words, capture_output=True, text=True)
    told = f"{out / 'report.html'}: cannot be written (File too large). Make room; nothing was replaced.\n"
    assert (ended.returncode, ended.stderr) == (2, f"flipguard compare: {told}")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_view_that_cannot_be_made_leaves_the_data(result, tmp_path, monkeypatch):
    monkeypatch.setattr("flipguard.evaluate.report.html.render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_results(tmp_path / "report", result)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["comparison.json", "flips.jsonl"]


def test_an_input_is_never_overwritten(write, tmp_path):
    rows = [{"id": i, "score": i} for i in range(3)]
    old, new = write("flips.jsonl", rows), write("new.jsonl", rows)
    result = compare_files(tmp_path / "." / old.name, new, Options())
    with pytest.raises(DataError, match=r"flips\.jsonl: is an input of this comparison .* Choose another --out"):
        write_results(tmp_path, result)
    assert sorted(tmp_path.iterdir()) == [old, new]


@pytest.fixture
def command(write, tmp_path):
    """A comparison on the command line that fails its limit."""
    old, new = (write(f"{name}.jsonl", [{"id": i, "score": s} for i in range(20)]) for name, s in (("a", 1), ("b", 0)))
    return ["compare", str(old), str(new), "--max-nfr", "0.1", "--out", str(tmp_path / "report")]


def test_the_summary_of_a_workflow_gets_the_report_after_what_is_there(command, write, tmp_path, monkeypatch, capsys):
    summary = write("summary.md", "# Before: é\n".encode())
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(command) == main(command) == 1
    text, report = summary.read_text(), (tmp_path / "report" / "report.md").read_text()
    assert text.startswith("# Before: é\n\n## ❌ FlipGuard: Fail")
    assert text.count(report) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["", "folder", "full.md", "pipe"])
def test_a_summary_that_cannot_be_written_is_a_warning_and_no_other_exit_code(
    name, command, write, tmp_path, monkeypatch, capsys
):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    write("full.md", b"x" * 999_999)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / name) if name else "")
    assert main(command) == 1
    warning = capsys.readouterr().err
    assert warning.count("\n") == bool(name)
    assert warning == "" or "warning: $GITHUB_STEP_SUMMARY: " in warning
    assert (tmp_path / "full.md").stat().st_size == 999_999


STOPS_BEFORE = """
import pathlib, sys, time
from flipguard.cli import main

replace = pathlib.Path.replace

def wait(self, target):
    if pathlib.Path(target).name == sys.argv[1]:
        print("written beside", flush=True)
        time.sleep(60)
    return replace(self, target)

pathlib.Path.replace = wait
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["comparison.json", "flips.jsonl", "report.md", "junit.xml", "report.html"])
def test_a_kill_while_a_file_is_written_leaves_the_old_one(write, tmp_path, name):
    old, first, second = (
        write(f"{run}.jsonl", [{"id": i, "correct": i >= worse} for i in range(20)])
        for run, worse in (("old", 0), ("first", 1), ("second", 9))
    )
    out = tmp_path / "report"
    assert main(["compare", str(old), str(first), "--out", str(out)]) == 0
    before = (out / name).read_bytes()
    words = [sys.executable, "-c", STOPS_BEFORE, name, "compare", str(old), str(second), "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written beside\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (out / name).read_bytes() == before
    assert main(["compare", str(old), str(second), "--out", str(out)]) == 0
    assert (out / name).read_bytes() != before
