"""The files a comparison leaves behind."""

from xml.etree import ElementTree

import orjson
import pytest

from flipguard.cli import main
from flipguard.errors import DataError
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.results import flip_rows, write_results


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


@pytest.mark.parametrize("name", ["", "folder", "full.md"])
def test_a_summary_that_cannot_be_written_is_a_warning_and_no_other_exit_code(
    name, command, write, tmp_path, monkeypatch, capsys
):
    (tmp_path / "folder").mkdir()
    write("full.md", b"x" * 999_999)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / name) if name else "")
    assert main(command) == 1
    warning = capsys.readouterr().err
    assert warning.count("\n") == bool(name)
    assert warning == "" or "warning: $GITHUB_STEP_SUMMARY: " in warning
    assert (tmp_path / "full.md").stat().st_size == 999_999
