"""Rows in other wrappings: JSON arrays, CSV, Parquet, gzip; and one file that is both runs."""

import gzip
import sys

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers, source
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.intake import BadLines, Intake

ROWS = '[{"id": 1, "score": 0.5}, {"id": "a", "score": null, "category": "x"}]'
TABLE = 'id,score,category\n1,0.5,\na,,"x"\n'


def read(path, **rules):
    return importers.read(path, Intake(**rules))[1]


def parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", ROWS),
        ("x.json", "\n " + ROWS.replace("}, {", "},\r\n\t{")),
        ("x.csv", TABLE),
        ("x.csv", TABLE.replace("\n", "\r\n").replace(",", ";")),
        ("x.tsv", TABLE.replace(",", "\t")),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, b"\xef\xbb\xbf".__add__])
def test_rows_are_the_same_in_every_wrapping(write, name, content, pack):
    entries = read(write(name, pack(content.encode()))).entries
    assert {key: (entry.answer.score, entry.categories) for key, entry in entries.items()} == {
        (1, 0): (0.5, ()),
        ("a", 0): (None, ("x",)),
    }


def test_parquet_is_read_where_pyarrow_is_installed(tmp_path):
    path = parquet(tmp_path / "x.parquet", id=[1, 2, 3], score=[0.5, None, float("nan")], completion=["a", "", None])
    assert [entry.answer.score for entry in read(path).entries.values()] == [0.5, None, None]


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow\. Install it with: pip install 'flipguard\[parquet\]'"):
        read(write("x.parquet", b"PAR1"))


def test_a_damaged_parquet_file_is_one_clear_error(tmp_path):
    path = parquet(tmp_path / "x.parquet", id=list(range(99)), score=[0.5] * 99)
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:4] + b"\xff" * 40 + whole[44:], b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a readable Parquet file"):
            read(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,score\n1,0.5\n2,x\n", r":3: 'score' is the text 'x'"),
        ("id,score\n1,0.5\n2,nan\n", r":3: 'score' is nan"),
        ("id,score\n1,0.5\n2\n", r":3: 1 cells under 2 names"),
        ("id,score\n1,0.5\n2,1,1\n", r":3: 3 cells under 2 names"),
        ('id,score\n1,0.5\n2,"1\n', r":3: not valid CSV \(unexpected end of data\)\. Is a quote left open\?"),
        ("id,score,id\n1,0.5,2\n", r":1: two columns are named 'id'"),
        ("id;score\n1;0,5\n", r":2: 'score' is the text '0,5'"),
        ("id,correct\n1,maybe\n", r":2: 'correct' is 'maybe'; expected true or false"),
        ("id,score\n,0.5\n", r":2: 'id' is None"),
        ("id,score\n1,1\n1,2\n", r":3: id 1, repeat 0 was there before, in line 2"),
        (b"id,score\n1,0.5\n\xff,1\n", r": is not in UTF-8"),
    ],
)
def test_a_faulty_cell_is_named_with_its_line(write, content, told):
    with pytest.raises(DataError, match=r"x\.csv" + told):
        read(write("x.csv", content if isinstance(content, bytes) else content.encode()))


def test_true_and_false_in_a_table_are_decisions_and_text_stays_text(write):
    run = read(write("x.csv", b'id,correct,completion,prompt\n007,TRUE,"1,\n""2""",true\nb,false,,\n'))
    assert run.metric == "correct"
    first = run.entries["007", 0]
    assert (first.answer.score, first.answer.completion, first.prompt) == (1.0, '1,\n"2"', "true")


def test_a_row_of_an_array_that_is_no_object_is_bad_and_counted(write):
    path = write("x.json", b'[{"id": 1, "score": 1}, 3, {"id": 2, "score": 1}]')
    with pytest.raises(DataError, match=r"x\.json: row 2: expected a JSON object, found 3"):
        read(path)
    assert len(read(path, bad=BadLines(1)).entries) == 2


def test_a_number_that_is_none_is_refused_in_an_array_too(write):
    with pytest.raises(DataError, match=r"x\.json: row 1: 'score' is nan"):
        read(write("x.json", b'[{"id": 1, "score": NaN}]'))


@pytest.mark.parametrize(("digits", "told"), [("9" * 19, ""), ("9" * 20, "'id' is 1e"), ("9" * 5000, "'id' is inf")])
def test_an_id_beyond_64_bits_is_refused_and_one_within_is_kept(write, digits, told):
    path = write("x.json", b'[{"id": %s, "score": 1, "more": NaN}]' % digits.encode())
    if told:
        with pytest.raises(DataError, match=told):
            read(path)
    else:
        assert list(read(path).entries) == [(int(digits), 0)]


def test_one_object_alone_is_one_row(write):
    assert len(read(write("x.json", b'{\n  "id": 1,\n  "score": 2\n}\n')).entries) == 1
    assert len(read(write("x.jsonl", b'{"id": 1, "score": 2}')).entries) == 1


def test_a_document_larger_than_memory_allows_is_refused(write, monkeypatch):
    monkeypatch.setattr(source, "LARGEST_DOCUMENT", 100)
    with pytest.raises(DataError, match="one JSON document of more than 100 bytes"):
        read(write("x.json", gzip.compress(b"[" + b" " * 200 + b"]")))


def test_a_file_whose_name_holds_a_hash_is_a_file(write, tmp_path):
    path = write("a#b.jsonl", b'{"id": 1, "score": 2}\n')
    assert read(path).name == "a#b"
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "c.jsonl#d")


def test_a_link_is_followed(write, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(write("x.jsonl", b'{"id": 1, "score": 2}\n'))
    assert len(read(tmp_path / "link.jsonl").entries) == 1
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "loop")


def test_a_table_and_rows_of_the_same_ids_can_be_compared(write):
    old, new = (
        write("old.csv", b"id,score\n1,0.5\n2,1\n"),
        write("new.jsonl", b'{"id":1,"score":0}\n{"id":2,"score":1}'),
    )
    comparison = compare_files(old, new, Options()).comparison
    assert (comparison.n, comparison.negative_flips) == (2, 1)


@pytest.mark.slow
def test_a_single_line_of_a_hundred_megabytes_is_read_or_refused(write, monkeypatch):
    path = write("x.jsonl", b'{"id": 1, "score": 1, "completion": "' + b"x" * 100_000_000 + b'"}\n')
    assert len(read(path).entries) == 1
    path.write_bytes(path.read_bytes() + b'{"id": 2, "score": 1}\n')
    assert len(read(path).entries) == 2
    monkeypatch.setattr("flipguard.files.LONGEST_LINE", 1_000_000)
    with pytest.raises(DataError, match=r"x\.jsonl:1: is longer than 1,000,000 bytes"):
        importers.read(path, Intake(), "scores")
