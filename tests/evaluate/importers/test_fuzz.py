"""Damaged files of every format: a deliberate error or rows that are counted, never anything else."""

import gzip
import json
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipguard.errors import FlipGuardError
from flipguard.evaluate import importers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.intake import BadLines, Intake
from flipguard.evaluate.runs import Judged

SPEC = {"task": "t", "model": "m", "dataset": {"sample_ids": [1, 2]}, "config": {"epochs": 1}}
OUTPUT = {"choices": [{"message": {"role": "assistant", "content": "A"}, "stop_reason": "stop"}]}
SCORED = {"target": "x", "output": OUTPUT, "scores": {"match": {"value": "C"}}}
SAMPLE = {"id": 1, "epoch": 1, "input": [{"role": "user", "content": "Q"}], **SCORED}
HASHES = {"doc_hash": "h", "target_hash": "t"}
DOC = {"doc_id": 0, "doc": {"q": "Q"}, "arguments": {"gen_args_0": {"arg_0": "Q"}}, "resps": [["A"]], **HASHES}
GAME = {"question_id": 1, "model_1": "m", "model_2": "n", "judge": ["gpt-4", "pair-v2"], "turn": 1}
RUN = {"vars": {"q": "x"}, "testIdx": 0, "provider": {"id": "m"}, "prompt": {"raw": "P"}, "success": True}
CHOICE = {"choices": [{"message": {"content": '{"score": 7}'}, "finish_reason": "stop"}]}
ROWS = {
    "scores": {"id": 1, "score": 0.5, "prompt": "P", "category": ["a"], "repeat": 0},
    "judgments": {"id": 1, "judge": "j", "old": {"score": 1, "model": "a"}, "new": {"score": 0, "completion": "x"}},
    "lm_eval": {**DOC, "filter": "none", "metrics": ["acc"], "acc": 1.0},
    "alpaca_eval": {"instruction": "I", "output_1": "a", "output_2": "b", "generator_2": "m", "preference": 1.5},
    "mt_bench": {"question_id": 1, "model": "m", "judge": ["gpt-4", "single-v1"], "score": 8, "turn": 1},
    "mt_bench_pairs": {**GAME, "g1_winner": "model_1", "g2_winner": "tie", "g1_judgment": "r"},
    "promptfoo": {**RUN, "score": 1, "namedScores": {"tone": 1}, "failureReason": 0, "response": {"output": "A"}},
    "openai_batch": {"custom_id": "a", "response": {"status_code": 200, "body": CHOICE}, "error": None},
}
PARTS = {"mt_bench_pairs": "#m"}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([10**400, 2**63, -0.0, 0.5, 1e300])
    | st.sampled_from(
        ["", "C", "model_1", "\x00\x1b[31m", "\ud800", "garbage", "Tie", "7", float("nan"), float("inf")]
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "value", "role"]), inner, max_size=2)
    ),
    max_leaves=3,
)
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(row, key):
    rows = [{**row, key: value} if value is not None else row for value in (None, 2, 3)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def document(samples):
    return {"version": 2, "status": "success", "eval": SPEC, "samples": samples}


def packed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("header.json", json.dumps({"version": 2, "status": "cancelled", "eval": SPEC}))
        for number in (1, 2):
            target.writestr(f"samples/{number}_epoch_1.json", json.dumps({**SAMPLE, "id": number}))
    return path.read_bytes()


@pytest.fixture
def whole(tmp_path):
    """A small sound file of each format, by its name."""
    files = {f"{name}.jsonl": lines(row, next(iter(row))) for name, row in ROWS.items()}
    files["array.json"] = json.dumps([ROWS["alpaca_eval"], {**ROWS["alpaca_eval"], "instruction": "J"}]).encode()
    files["log.json"] = json.dumps(document([SAMPLE, {**SAMPLE, "id": 2}]), indent=1).encode()
    files["promptfoo.json"] = json.dumps({"results": {"results": [ROWS["promptfoo"]]}}, indent=1).encode()
    files["scores.csv"] = b'id,score,prompt\n1,0.5,"a, b"\n2,1,c\n'
    files["log.eval"] = packed(tmp_path / "x.eval")
    return files


def read_or_say_why(path, name):
    """How many rows were taken; any other exception than ours fails the test."""
    bad = BadLines(9)
    try:
        _, run = importers.read(Path(f"{path}{PARTS.get(name.split('.')[0], '')}"), Intake("first", None, bad))
    except FlipGuardError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
        return 0
    rows = run.judgments if isinstance(run, Judged) else run.entries
    scored = [item.answer.score for item in rows.values()] if not isinstance(run, Judged) else []
    assert all(score is None or abs(score) < float("inf") for score in scored)
    return len(rows)


def test_sound_files_are_read_whole(whole, tmp_path):
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
        assert read_or_say_why(tmp_path / name, name) >= 1, name


@pytest.mark.parametrize("seed", range(12))
def test_files_cut_short_or_with_flipped_bytes_are_refused_or_counted(whole, tmp_path, seed):
    chance = random.Random(seed)
    for name, content in whole.items():
        path = tmp_path / f"damaged-{name}"
        damaged = bytearray(content)
        for _ in range(seed // 2):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(1, len(damaged))] if seed % 2 == 0 else damaged)
        assert read_or_say_why(path, name) <= 4


@pytest.mark.parametrize("name", ROWS)
@fuzz
@given(data=st.data())
def test_rows_with_any_value_in_any_place_are_refused_or_counted(tmp_path, name, data):
    row = dict(ROWS[name])
    for key in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[key] = data.draw(VALUES)
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(ROWS[name]) + "\n" + json.dumps(row) + "\n")
    assert read_or_say_why(path, name) <= 2
    path.write_text(json.dumps(row) + "\n")
    assert read_or_say_why(path, name) <= 1


@fuzz
@given(data=st.data())
def test_samples_with_any_value_in_any_place_are_refused_or_counted(tmp_path, data):
    parts = {**SAMPLE, "error": None, "limit": None, "messages": [], "attachments": {}, "invalidation": None}
    changed = {key: data.draw(VALUES) for key in data.draw(st.lists(st.sampled_from(sorted(parts)), max_size=3))}
    log = document([SAMPLE, {**SAMPLE, "id": 2, **changed}])
    log |= {key: data.draw(VALUES) for key in data.draw(st.lists(st.sampled_from(["status", "samples"]), max_size=1))}
    spec = {key: data.draw(VALUES) for key in data.draw(st.lists(st.sampled_from(sorted(SPEC)), max_size=2))}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**log, "eval": {**SPEC, **spec}}))
    assert read_or_say_why(path, "log.json") <= 4


REAL = {
    "inspect_ai_logs/log_formats.json": "",
    "inspect_ai_logs/log_streaming.eval": "",
    "inspect_ai_logs/2025-02-11T15-18-04-05-00_popularity_mj7khqpMM4GBCfVQozKgzB.eval": "",
    "lm_eval_logs/samples_asdiv_llama3-8b-instruct_2024-08-21.jsonl.gz": "",
    "lm_eval_logs/samples_negotiationtom_belief_qwen3-8b_runA.jsonl.gz": "",
    "mt_bench/raw_phi3_gpt-4_pair.jsonl": "#phi-3",
    "mt_bench/judgments_single.jsonl.gz": "#mistral-orpo",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_that_were_damaged_are_refused_or_lose_rows_that_are_counted(shared, tmp_path, name):
    whole = (shared / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(whole)
    rows = read_or_say_why(Path(f"{path}{REAL[name]}"), "")
    assert rows > 0
    for seed in range(6):
        chance = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(1 + 3 * (seed % 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(1, len(whole))] if seed < 3 else damaged)
        bad = BadLines(9)
        try:
            _, run = importers.read(Path(f"{path}{REAL[name]}"), Intake("first", None, bad))
        except FlipGuardError as error:
            assert "\n" not in str(error)
            continue
        taken = len(run.judgments if isinstance(run, Judged) else run.entries)
        assert taken <= rows + 1  # a changed id is another id
        assert seed < 3 or taken + len(bad.told) + run.duplicates >= rows


@pytest.mark.parametrize(
    "line", [b'{"id": 2, "score": 1, "prompt": "\xff\xfe"}', b'{"id": 2\x00, "score": 1}', b"\xff"]
)
def test_a_line_that_is_no_utf_8_is_named_with_its_place(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": 1, "score": 1}\n' + line + b"\n")
    with pytest.raises(FlipGuardError, match=r"x\.jsonl:2: not valid JSON"):
        importers.read(path, Intake())
    bad = BadLines(1)
    assert len(importers.read(path, Intake(bad=bad))[1].entries) == 1
    assert len(bad.told) == 1


@pytest.mark.parametrize("name", [*ROWS, "log.json", "promptfoo.json", "array.json", "scores.csv"])
def test_every_format_may_be_packed_with_gzip(whole, tmp_path, name):
    name = name if "." in name else f"{name}.jsonl"
    plain, packed = tmp_path / name, tmp_path / f"{name}.gz"
    plain.write_bytes(whole[name])
    packed.write_bytes(gzip.compress(whole[name]))
    assert read_or_say_why(packed, name) == read_or_say_why(plain, name) >= 1


def test_hostile_names_and_texts_reach_the_results_and_do_no_harm(tmp_path):
    hostile = "\x1b[31m\u202e<script>\ud800"
    for name, more in (("old", {"acc": 1.0}), ("new", {"acc": 0.0})):
        row = {**ROWS["lm_eval"], **more, "doc_hash": hostile, "resps": [[f"{name}{hostile}"]]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    result = compare_files(tmp_path / "old.jsonl", tmp_path / "new.jsonl", Options())
    assert result.comparison.negative_flips == 1
