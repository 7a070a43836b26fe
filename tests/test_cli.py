"""The command line as scripts see it: exit codes, one-line errors, output for people and for machines."""

import json
import subprocess
import sys

import pytest

from flipguard import __version__
from flipguard.cli import VERBS, main
from flipguard.output import as_json


def rows(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """100 prompts, 4 of them broken, in the current folder."""
    monkeypatch.chdir(tmp_path)
    old = rows(tmp_path / "old.jsonl", [{"id": number, "correct": number < 60} for number in range(100)])
    new = rows(tmp_path / "new.jsonl", [{"id": number, "correct": 4 <= number < 80} for number in range(100)])
    return [old, new]


def told(capsys):
    output = capsys.readouterr()
    return output.out, output.err


@pytest.mark.parametrize(
    ("limit", "code", "word"),
    [(None, 0, "4 of 100"), ("0.5", 0, "PASS"), ("0.005", 1, "FAIL"), ("0.05", 3, "INCONCLUSIVE")],
)
def test_the_exit_code_is_the_verdict(runs, capsys, limit, code, word):
    assert main(["compare", *runs, *([] if limit is None else ["--max-nfr", limit])]) == code
    output, errors = told(capsys)
    assert word in output
    assert errors == ""
    assert max(map(len, output.splitlines())) <= 80


def test_result_files_are_written_whatever_the_verdict(runs, tmp_path):
    others = rows(tmp_path / "other.jsonl", [{"id": number, "correct": True} for number in range(1000, 1100)])
    assert main(["compare", runs[0], others, "--out", "none-in-common"]) == 4
    written = {path.name for path in (tmp_path / "none-in-common").iterdir()}
    assert written == {"comparison.json", "flips.jsonl", "report.html", "report.md", "junit.xml"}


LOUD = """
import os, sys
from flipguard.cli import main
import flipguard.evaluate.compare as compare

quiet = compare.compare_files

def loud(*args, **options):
    print("a library says hello")
    os.write(1, b"so does its C code\\n")
    os.system("echo and its process")
    return quiet(*args, **options)

compare.compare_files = loud
sys.exit(main(sys.argv[1:]))
"""


def test_json_stands_alone_on_standard_output_whatever_libraries_write_there(runs):
    command = [sys.executable, "-c", LOUD, "compare", *runs, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["schema"] == "flipguard.comparison/1"
    for said in ("a library says hello", "so does its C code", "and its process"):
        assert said in done.stderr


def test_json_is_for_machines(runs, capsys):
    main(["compare", *runs, "--json"])
    result = json.loads(told(capsys)[0])
    assert result["schema"] == "flipguard.comparison/1"
    assert result["nfr"]["k"] == 4
    main(["plan", "--limit", "0.05", "--json"])
    assert json.loads(told(capsys)[0])["prompts"] == 390


def test_plan_speaks(capsys):
    assert main(["plan", "--limit", "0.1"]) == 0
    text = told(capsys)[0]
    assert text.startswith("180 prompts")
    assert max(map(len, text.splitlines())) <= 80


def bad_compare(folder, name):
    good = [{"id": number, "score": 0.5} for number in range(10)]
    match name:
        case "missing":
            return ["none.jsonl"]
        case "broken":
            lines = [json.dumps(item) for item in good]
            lines[6] = '{"id": 6, "score": '
            (folder / "broken.jsonl").write_text("\n".join(lines))
            return ["broken.jsonl"]
        case "duplicate":
            return [rows(folder / "twice.jsonl", [*good, good[3]])]
        case "garbage":
            return [rows(folder / "garbage.jsonl", [*good[:4], {"id": "x", "score": "garbage"}])]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "none.jsonl: no such file"),
        ("broken", "broken.jsonl:7: not valid JSON"),
        ("duplicate", "twice.jsonl:11: id 3"),
        ("garbage", "garbage.jsonl:5: "),
    ],
)
def test_a_bad_file_is_one_line_and_exit_2(tmp_path, monkeypatch, capsys, name, says):
    monkeypatch.chdir(tmp_path)
    good = rows(tmp_path / "good.jsonl", [{"id": number, "score": 0.5} for number in range(10)])
    assert main(["compare", good, *bad_compare(tmp_path, name)]) == 2
    output, errors = told(capsys)
    assert output == ""
    assert errors.startswith("flipguard compare: ")
    assert says in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "words",
    [["compare"], ["compare", "a", "b", "--max-nrf", "0.1"], ["nothing"], [], ["compare", "a", "--margin", "x"]],
)
def test_a_wrong_command_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    assert "flipguard" in told(capsys)[1]


@pytest.mark.parametrize("word", ["--max_nfr=0.05", "--max-nrf"])
def test_a_misspelt_option_names_the_one_that_is_meant(word, capsys):
    with pytest.raises(SystemExit):
        main(["compare", "a", "b", word])
    assert f"unknown argument {word}. Did you mean --max-nfr?" in told(capsys)[1]


@pytest.mark.parametrize(
    "words",
    [["compare", "a", "b", "--max-nfr", "5"], ["plan", "--limit", "2"], ["plan", "--limit", "0.1", "--power", "7"]],
)
def test_an_impossible_number_is_one_line_and_exit_2(words, capsys):
    assert main(words) == 2
    assert told(capsys)[1].count("\n") == 1


@pytest.mark.parametrize("words", [[], *([verb.__name__] for verb in VERBS)], ids=" ".join)
def test_help_teaches_within_80_columns(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as raised:
        main([*words, "--help"])
    assert raised.value.code == 0
    text = told(capsys)[0]
    assert max(map(len, text.splitlines())) <= 80
    assert "--json" in text or not words


def test_a_recipe_that_cannot_be_is_refused_before_anything_is_loaded(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("algorithm: dpo\nmodel: ./m\ndata: {train: d.jsonl}\nconstraint: {gamma: 1}\n")
    cases = {
        ("--constraint.gamma", "-1"): "--constraint.gamma: -1 is not possible",
        ("--constraint.gama=1",): "Did you mean 'gamma'?",
        ("--trainer.output_dir", str(tmp_path / "out")): "no such folder",
        ("--model", "./nowhere"): "./nowhere: no such folder",
    }
    for words, says in cases.items():
        assert main(["train", str(recipe), *words]) == 2
        errors = told(capsys)[1]
        assert says in errors
        assert errors.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["train", str(recipe), "--constraint.gamma"])
    assert "without a value" in told(capsys)[1]


def test_the_installed_command_answers():
    ran = subprocess.run([sys.executable, "-m", "flipguard", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"flipguard {__version__}\n"


def test_a_full_disk_keeps_the_old_report(runs, tmp_path, capsys, monkeypatch):
    main(["compare", *runs])
    before = (tmp_path / "report" / "report.html").read_bytes()
    capsys.readouterr()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["compare", *runs, "--max-nfr", "0.5"]) == 2
    errors = told(capsys)[1]
    assert "No space left on device" in errors
    assert (tmp_path / "report" / "report.html").read_bytes() == before
    assert not list((tmp_path / "report").glob(".*.tmp"))


def test_what_a_file_is_called_gives_no_command_to_the_runner_of_a_workflow(capsys):
    assert main(["compare", "##[error]x", "b"]) == 2
    assert "#·[error]x: no such file" in capsys.readouterr().err
    value = {"##[a]": ["###", "# #", "\\##"]}
    assert "##" not in as_json(value)
    assert json.loads(as_json(value)) == value
