"""Files, folders and data sets give the same rows."""

import gzip
import json

import datasets
import pytest

from flipguard.errors import DataError
from flipguard.train.dataspec import DataSpec, SourceSpec
from flipguard.train.sources import parted, read_rows

ROWS = [{"prompt": "a, b", "chosen": "c\nd", "rejected": "NA"}, {"prompt": "é", "chosen": "true", "rejected": '"'}]


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(folder, name):
    path = folder / name
    table = datasets.Dataset.from_list(ROWS)
    inner = name.removesuffix(".gz")
    plain = folder / inner
    if inner.endswith(".parquet"):
        table.to_parquet(plain)
    elif inner.endswith((".csv", ".tsv")):
        table.to_csv(plain, index=False, sep="\t" if inner.endswith(".tsv") else ",")
    else:
        plain.write_bytes(json.dumps(ROWS).encode() if inner.endswith(".json") else as_jsonl(ROWS))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    return str(path)


def rows_of(path, **said):
    return list(read_rows(SourceSpec(path, **said)))


@pytest.mark.parametrize(
    "name", ["d.jsonl", "d.ndjson", "d.json", "d.csv", "d.tsv", "d.parquet", "d.jsonl.gz", "d.json.gz", "d.csv.gz"]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    found = rows_of(put(tmp_path, name))
    assert [item.row for item in found] == ROWS
    assert [item.number for item in found] == [0, 1]


def test_lines_are_those_of_the_file_and_a_json_file_may_hold_lines(tmp_path):
    assert [item.line for item in rows_of(put(tmp_path, "d.jsonl"))] == [1, 2]
    assert [item.line for item in rows_of(put(tmp_path, "d.csv"))] == [2, 4]  # the first row spans two lines
    (tmp_path / "e.json").write_bytes(as_jsonl(ROWS))
    assert [item.row for item in rows_of(str(tmp_path / "e.json"))] == ROWS


def test_a_folder_is_read_as_the_hub_has_it_with_splits(tmp_path):
    (tmp_path / "d" / "data").mkdir(parents=True)
    for split, rows in (("train_prefs", ROWS), ("test_prefs", ROWS[:1])):
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "d" / "data" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "d" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train_prefs\n    path: data/train_prefs-*\n"
        "  - split: test_prefs\n    path: data/test_prefs-*\n---\n"
    )
    assert [item.row for item in rows_of(str(tmp_path / "d"), split="train_prefs")] == ROWS
    assert [item.row for item in rows_of(str(tmp_path / "d"), split="test_prefs")] == ROWS[:1]
    with pytest.raises(DataError, match="Unknown split"):
        rows_of(str(tmp_path / "d"))


def test_a_saved_data_set_is_a_folder_too(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert [item.row for item in rows_of(str(tmp_path / "saved"))] == ROWS
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "several")
    with pytest.raises(DataError, match=r"holds the splits train\. Choose one of them with split"):
        rows_of(str(tmp_path / "several"))
    assert [item.row for item in rows_of(str(tmp_path / "several"), split="train")] == ROWS


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(as_jsonl(ROWS) + b"not json\n")
    assert len(rows_of(str(tmp_path / "d.jsonl"), max_rows=2)) == 2


def test_a_hub_id_may_carry_revision_and_split():
    source = parted(SourceSpec("owner/name@v1.0:train_prefs"))
    assert (source.path, source.revision, source.split) == ("owner/name", "v1.0", "train_prefs")
    assert parted(SourceSpec("owner/name", split="train[:10%]")).split == "train[:10%]"
    with pytest.raises(DataError, match="says its split twice"):
        parted(SourceSpec("owner/name:a", split="b"))
    with pytest.raises(DataError, match="no name of a hub data set"):
        parted(SourceSpec("not a name"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.json", b"[1]", r"d.json\[0\]: expected an object, found 1"),
        ("d.json", b"[{]", "d.json:1: not valid JSON"),
        ("d.csv", b"a,b\n1\n", "d.csv:2: 1 cells under 2 names"),
        ("d.csv", b"a\n\xff\n", "not in UTF-8"),
        ("d.parquet", b"no", "not a readable Parquet file"),
        ("d.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-9], "cannot be read to its end"),
        ("d.xml", b"", r"Choose one of: \.jsonl, \.ndjson, \.json, \.csv, \.tsv, \.parquet"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as raised:
        rows_of(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_hub_data_set_that_cannot_be_had_says_so():
    with pytest.raises(DataError, match="owner/none: no such file, and no such data set"):
        rows_of("owner/none")


def test_a_source_is_a_path_a_mapping_or_several():
    spec = DataSpec(train=["a.jsonl", {"path": "b.jsonl", "weight": 2}], eval="c.jsonl")
    assert spec.train == (SourceSpec("a.jsonl"), SourceSpec("b.jsonl", weight=2))
    assert list(spec.named()) == ["data.train.0", "data.train.1", "data.eval"]
    assert spec.said()["train"] == {"0": "a.jsonl", "1": {"path": "b.jsonl", "weight": 2.0}}
    assert spec.said()["eval"] == "c.jsonl"
