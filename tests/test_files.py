"""Files between the stages: whole or not at all, and every fault named."""

import gzip
import os
import stat
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.errors import DataError
from flipguard.files import open_binary, read_jsonl, replacing, to_json, write_bytes, write_jsonl, write_text

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def stop(path, mode="wb"):
    with replacing(path, mode) as file:
        file.write(b"half" if "b" in mode else "half")
        raise KeyboardInterrupt


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"whole")
    with pytest.raises(KeyboardInterrupt):
        stop(path)
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208 - the names are the point


def test_a_new_file_whose_writing_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stop(tmp_path / "deep" / "a.txt", "w")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path):
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "usual").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")]
    assert modes[0] == modes[1]


def test_a_device_is_written_to_and_not_replaced():
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["file/inside.txt", "folder", "x" * 300])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"cannot be written \(.*\)\. Choose a folder"):
        write_bytes(tmp_path / name, b"")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


@given(rows=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5))
def test_rows_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, rows)
    assert [row for _, row in read_jsonl(path)] == rows


def test_lone_surrogates_become_the_replacement_character():
    assert orjson.loads(to_json({"\ud800a": ["\udfffb", ("\ud9ab",), 1]})) == {"\ufffda": ["\ufffdb", ["\ufffd"], 1]}


def test_what_json_cannot_hold_is_not_written_in_silence():
    with pytest.raises(TypeError):
        to_json({"a": object()})


@pytest.mark.parametrize("inner", ["a", "\ud800"])
def test_what_nests_too_deeply_for_json_is_a_clear_error(inner):
    for levels in (300, 2_000):
        value = inner
        for _ in range(levels):
            value = [value]
        with pytest.raises(DataError, match="levels deep"):
            to_json(value)


def test_text_with_a_lone_surrogate_can_be_written(tmp_path):
    write_text(tmp_path / "a.txt", "a\ud800")
    assert (tmp_path / "a.txt").read_text() == "a\ufffd"


def test_blank_lines_are_passed_over_and_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\r\n   \n{"a":2}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{oops", r"a\.jsonl:2: not valid JSON \(.*at column 2\): b'\{oops'\."),
        (b"[1]", r"a\.jsonl:2: expected one JSON object a line, found \[1\]\."),
        (b'{"a": NaN}', "write null"),
        (b"\xff\xfe{", "UTF-16"),
        (b'{"id": "caf\xe9"}', r"It is not UTF-8 \(0xe9 at byte 12\); save it as UTF-8"),
        (b"[", "not one array over all"),
        (b'{"a": 1e400}', "write null"),
        (b'{"a": "\\ud800"}', r"Half a surrogate pair is no character; write U\+FFFD"),
        (b'{"a": 1}\r{"a": 2}', "Lines end with a line feed"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_malformed_line_is_named_with_its_number(tmp_path, line, told):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=told):
        list(read_jsonl(path))


def test_tolerated_lines_are_told_one_by_one(tmp_path):
    path, told = tmp_path / "a.jsonl", []
    path.write_bytes(b'x\n{"a": 1}\ny\n')
    assert list(read_jsonl(path, skip_bad=2, on_bad=told.append)) == [(2, {"a": 1})]
    assert len(told) == 2
    with pytest.raises(DataError, match=r"a\.jsonl:3"):
        list(read_jsonl(path, skip_bad=1))


def test_gzip_is_unpacked_whatever_the_name(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [(1, {"a": 1})]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:20] + b"\xff" * 30 + data[50:]])
def test_a_damaged_gzip_file_is_an_error(tmp_path, damage):
    packed = gzip.compress(b"".join(b'{"a": %d}\n' % (number**3) for number in range(999)))
    (tmp_path / "a.gz").write_bytes(damage(packed))
    with pytest.raises(DataError, match=r"a\.gz: cannot be read to its end"):
        list(read_jsonl(tmp_path / "a.gz", skip_bad=10**6))


def test_what_is_not_a_readable_file_is_named(tmp_path):
    (tmp_path / "old.jsonl").touch()
    for path, told in [
        (Path("/dev/zero"), "not a regular file but a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "odl.jsonl", r"Did you mean '.*old\.jsonl'\?"),
        (tmp_path / "none" / "a", "does not exist either"),
        (tmp_path / "zzz", "Check the path"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / "old.jsonl" / "a", "cannot be read"),
    ]:
        with pytest.raises(DataError, match=told):
            open_binary(path)
