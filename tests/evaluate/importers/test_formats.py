"""How a format is found, and what is said where none is."""

import gzip
import os
import sys
from pathlib import Path

import pytest

from flipguard.errors import DataError, shown
from flipguard.evaluate import importers
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.runs import Judged, Run
from flipguard.evaluate.source import Source

ROOT = Path(__file__).parents[3]
SCORES = [{"id": 1, "score": 0.5}]
JUDGMENTS = [{"id": 1, "judge": "j", "old": {"score": 1}, "new": {"score": 0}}]


def test_every_format_has_both_functions_and_says_why_it_is_not_one(write):
    source = importers.Source.of(write("x.jsonl", [{"nothing": 1}]))
    for name in importers.FORMATS:
        assert importers._importer(name).recognise(source)


@pytest.mark.parametrize(("rows", "name"), [(SCORES, "scores"), (JUDGMENTS, "judgments")])
@pytest.mark.parametrize("packed", [False, True])
def test_the_format_is_found_by_looking_even_into_gzip(write, rows, name, packed):
    path = write("run.txt", rows)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert importers.read(path, Intake())[0] == name


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            [{"id": 1, "completion": "x"}],
            r" \(no row has .*scores \(no row has 'score' or 'correct'; .*'id', 'com",
        ),
        (b'[{"id": 1}]', "no row has 'score' or 'correct'"),
        (b"[1, 2]", "its array holds no objects"),
        (b'[{"id": 1}, ', r"it is not valid JSON \("),
        (b'{"id": 1}{"id": 2}\n', "first line is not a JSON object"),
        (b"name,score\n1,2\n", r"first line is not a JSON object: b'name,score'"),
        (b"\x00\xff\x00", "not a JSON object"),
        (b"3\n4\n", "not a JSON object"),
    ],
)
def test_a_file_no_format_recognises_says_what_was_tried_and_why_it_failed(write, content, told):
    with pytest.raises(DataError, match=rf"x\.jsonl: no known format\..* Tried judgments.*{told}") as caught:
        importers.read(write("x.jsonl", content), Intake())
    assert f"--format names one: {', '.join(importers.FORMATS)}." in str(caught.value)
    assert all(name in str(caught.value).partition("--format")[0] for name in importers.FORMATS)


def test_a_line_that_no_format_begins_with_is_not_read_to_its_end(write):
    """A bomb of gigabytes in one line, packed to a megabyte, is told from JSON by its first letter."""
    source = Source.of(write("x.jsonl", gzip.compress(b"z" * 30_000_000, 1)))
    assert (len(source.head), source.rows) == (65_536, ())
    assert shown(b"z" * 30_000_000, 5) == "b'zz…"


@pytest.mark.parametrize("name", importers.FORMATS)
def test_an_empty_array_of_a_named_format_says_that_it_is_empty(write, name):
    with pytest.raises(DataError, match=rf"x\.json: holds no rows of the format {name}: its array is empty\."):
        importers.read(write("x.json", b"[]"), Intake(), name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b'{"results": {"gsm8k": {"acc": 0.5}}, "config": {}}',
            "compare its samples_*.jsonl, which --log_samples writes",
        ),
        (b'{"id": 1, "reward": 0.5}', "name the grade: --format scores --metric reward."),
        (b'{"id": 1, "prompt": "x", "completion": "y"}', "grade it and its partner with flipguard judge."),
        (b'[{"instruction": "x", "output": "y"}]', "It holds answers without grades; grade them first."),
        (b"question,model,score\n1,a,2\n", "If it is a table, it needs a column named id."),
        ("id,score\n".encode("utf-16"), "It is UTF-16LE; convert it to UTF-8, as iconv -f UTF-16LE -t UTF-8 does."),
        ("{}".encode("utf-16-be"), "It is UTF-16BE; "),
        ("{}".encode("utf-32"), "It is UTF-32LE; "),
        ('[{"id": "caf\xe9"}]'.encode("latin-1"), "It is not UTF-8 (0xe9 at byte 13); save it as UTF-8."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "git lfs pull fetches the file itself."),
        (b"<!DOCTYPE html><p>404, sorry</p>", "It is a page of HTML; a download may have failed."),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "It was gzipped twice; unpack it once."),
        (b"just words\nand more\n", "no known format. Tried"),
        (b"<svg>, ;", "no known format. Tried"),
        (b"\x89PNG\r\n", "no known format. Tried"),
        (b"PK\x05\x06" + bytes(18), "no known format. Tried"),
    ],
)
def test_what_a_wrong_file_may_be_is_said_first(write, content, told):
    with pytest.raises(DataError) as caught:
        importers.read(write("x", content), Intake())
    assert told in str(caught.value)


def test_the_hint_of_a_grade_by_another_name_works(write):
    path = write("x.jsonl", [{"id": 1, "reward": 0.5}])
    assert importers.read(path, Intake(metric="reward"), "scores")[1].entries[1, 0].answer.score == 0.5


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_says_what_belongs_into_it(write, content):
    path = write("x.jsonl", content.removeprefix(b"\xef\xbb\xbf") or b"")
    with pytest.raises(DataError, match=r"x\.jsonl: is empty\. Expected"):
        importers.read(path, Intake())


def test_a_named_format_is_taken_at_its_word(write):
    path = write("x.jsonl", JUDGMENTS)
    with pytest.raises(DataError, match=r"x\.jsonl:1: 'score' is missing"):
        importers.read(path, Intake(), "scores")


def test_an_unknown_format_names_the_choices(write):
    with pytest.raises(DataError, match=r"unknown format 'score'\. Did you mean 'scores'\?"):
        importers.read(write("x.jsonl", SCORES), Intake(), "score")


def test_a_folder_is_not_scores(tmp_path):
    with pytest.raises(DataError, match="it is a folder"):
        importers.read(tmp_path, Intake())


def test_a_pipe_is_refused_because_it_cannot_be_looked_at_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="Save it to a file first"):
        importers.read(tmp_path / "pipe", Intake())


def test_a_missing_file_names_its_neighbour(write, tmp_path):
    write("old.jsonl", SCORES)
    with pytest.raises(DataError, match=r"no such file\. Did you mean '.*old\.jsonl'\?"):
        importers.read(tmp_path / "od.jsonl", Intake())


def test_a_gzip_file_cut_short_is_an_error_not_a_short_run(write):
    rows = b"".join(b'{"id": %d, "score": 2}\n' % number for number in range(9000))
    path = write("x.gz", gzip.compress(rows)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        importers.read(path, Intake())


def test_a_first_line_longer_than_the_head_is_still_recognised(write):
    path = write("x.jsonl", [{"prompt": "x" * 200_000, "id": 1, "score": 1}])
    assert importers.read(path, Intake())[0] == "scores"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "from flipguard.evaluate.runs import Judged\n"
        "def both(source, intake): return Judged('a', 'b', 'score')\n"
        "def wrong(source, intake): return 3\n"
        "def short(source): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine_for_test"
    sys.modules.pop("mine_for_test", None)


def test_a_format_of_ones_own_is_named_by_module_and_function(write, plugin):
    name, run = importers.read(write("x.any", b"anything"), Intake(), f"{plugin}:both")
    assert name == f"{plugin}:both"
    assert isinstance(run, Judged)
    assert not isinstance(run, Run)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wrong", "expected a Run"),
        ("absent", "cannot be loaded"),
        ("short", r"short: failed on .*x\.any: TypeError: short\(\) takes 1 positional argument but 2 were given\.$"),
    ],
)
def test_a_format_of_ones_own_that_breaks_its_contract_is_named(write, plugin, name, told):
    with pytest.raises(DataError, match=told):
        importers.read(write("x.any", b"anything"), Intake(), f"{plugin}:{name}")


def test_a_module_that_does_not_exist_is_named(write):
    with pytest.raises(DataError, match=r"no_such_module_here:f: cannot be loaded"):
        importers.read(write("x.any", b"anything"), Intake(), "no_such_module_here:f")


def test_the_documentation_has_a_line_for_every_format():
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(importers.FORMATS)


@pytest.mark.parametrize("named", ["mt_bench_pairs", "inspect_ai"])
def test_a_format_named_for_a_file_or_folder_without_its_rows_is_one_clear_error(write, named):
    path = write("run.jsonl", SCORES)
    with pytest.raises(DataError, match=r"is not of the format|holds no logs"):
        importers.read(path if named == "mt_bench_pairs" else path.parent, Intake(), named)


@pytest.mark.parametrize("levels", [300, 900])
@pytest.mark.parametrize(
    "row",
    [
        '{"id": 1, "score": 1, "reference": X}',
        '{"id": 1, "old": {}, "new": {}, "verdicts": [{"order": "old_first", "winner": "old", "raw": X}]}',
        (
            '{"eval": {}, "status": "success", "samples": '
            '[{"id": 1, "target": X, "messages": [{"role": "assistant", "content": X}]}]}'
        ),
    ],
)
def test_what_nests_too_deeply_to_be_written_again_is_refused_when_it_is_read(write, row, levels):
    path = write("run.jsonl", [])
    path.write_text(row.replace("X", "[" * levels + "]" * levels) + "\n")
    with pytest.raises(DataError, match=r"run\.jsonl.* levels deep"):
        importers.read(path, Intake())


def test_a_second_model_far_down_in_annotations_is_never_taken_for_the_first(write):
    one = [{"instruction": str(i), "preference": 1, "generator_1": "base", "generator_2": "a"} for i in range(2000)]
    path = write("annotations.jsonl", [*one, {**one[0], "preference": 2, "generator_2": "b"}])
    with pytest.raises(DataError, match=r":2001: output_2 is of b, before of a\."):
        importers.read(path, Intake("last"))
