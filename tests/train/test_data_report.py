"""`flipguard train --check-data`: every fault counted, every row of it listed, nothing trained."""

import json
from pathlib import Path

import pytest

from flipguard.cli import main
from flipguard.train.data_report import check_data

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "preferences" / "hh_rlhf_harmless_base_test.jsonl.gz"


@pytest.fixture
def recipe(make_recipe, tmp_path):
    def write(*rows, **data):
        (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return make_recipe(data={"train": "d.jsonl", **data})

    return write


def pair(chosen=" w1", rejected=" w2 w3", prompt="w4"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def rows_by(report, says):
    return {item.says: item.rows for item in report.sources[0].findings}[says]


def test_hh_has_exactly_the_faults_that_were_counted_by_hand(make_recipe):
    if not REAL.exists():
        pytest.skip("the real data are not here")
    report = check_data(make_recipe(data={"train": str(REAL)}))
    (source,) = report.sources
    assert (source.format, source.rows) == ("hh", 2312)
    assert rows_by(report, "empty chosen replies") == [86, 516, 925, 1103]
    assert rows_by(report, "pairs whose prompts differ") == [1254, 1688, 1950, 1952, 2036]
    counted = {item.says: item.count for item in source.findings}
    assert "empty rejected replies" not in counted
    assert counted["same speaker twice in a row in chosen"] == 8
    assert counted["same speaker twice in a row in rejected"] == 5
    assert counted["role markers inside a turn of chosen"] == 40
    assert counted["role markers inside a turn of rejected"] == 33
    assert source.trained_on + sum(source.left_out.values()) == 2312


def test_every_row_of_every_fault_is_in_the_file_and_the_first_are_shown(recipe, tmp_path, capsys):
    path = recipe(*[pair(chosen=" ") for _ in range(12)], pair(), pair(), pair(prompt="w1 " * 9), max_prompt_tokens=8)
    assert main(["train", str(path), "--check-data", "--out", str(tmp_path / "r.json")]) == 0
    told = capsys.readouterr().out
    assert "15 rows in the format pairs, 2 to train on" in told
    assert "12 empty chosen replies (empty_reply, left out): rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more" in told
    assert "12 duplicates of earlier rows (duplicate, kept): rows 1, 2, " in told
    assert "1 prompts over 8 tokens (over_long, left out): rows 14\n" in told
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["schema"] == "flipguard.data_report/1"
    (source,) = report["sources"]
    assert source["findings"][0]["rows"] == list(range(12))
    assert source["left_out"] == {"with empty replies": 12, "with prompts over 8 tokens": 1}
    assert not (tmp_path / "dpo").exists()


def test_bad_data_that_would_stop_training_is_listed_and_the_exit_code_says_so(recipe, capsys):
    path = recipe(pair(), {"prompt": "w1", "chosen": None, "rejected": "w2"}, pair(chosen="w1 " * 70))
    assert main(["train", str(path), "--check-data"]) == 2
    assert "rows 2\n    lower data.max_prompt_tokens, or data.max_completion_tokens" in capsys.readouterr().out
    assert main(["train", str(path), "--check-data", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert not report["trainable"]
    (source,) = report["sources"]
    assert (source["beyond_context"], source["trained_on"]) == ([2], 2)
    (finding,) = [item for item in source["findings"] if item["fault"] == "malformed"]
    assert (finding["action"], finding["rows"]) == ("stop", [1])
    assert finding["examples"][0].endswith("d.jsonl:2: 'chosen' must be a text or a list of messages, found None")
    assert json.loads(path.with_name("dpo.data_report.json").read_text()) == report


def test_hostile_rows_cannot_speak_to_the_terminal(recipe, capsys):
    for hostile in ({"chosen": "\x1b[31m", "rejected": 1}, {"chosen": {"\x1b[31m": 1}, "rejected": ""}):
        assert main(["train", str(recipe(pair(), {"prompt": "w1", **hostile})), "--check-data"]) == 2
    assert "\x1b" not in capsys.readouterr().out


def test_pairs_that_differ_in_one_token_of_many_are_at_risk_of_displacement(recipe):
    near = [" ".join(["w1"] * 20 + [last]) for last in ("w2", "w3")]
    report = check_data(recipe(pair(), pair(*near), pair("w5 w6 w7", "w8 w9")))
    assert rows_by(report, "pairs at risk of likelihood displacement") == [1]
    assert report.sources[0].left_out == {}


def test_data_without_a_fault_say_so(recipe):
    report = check_data(recipe(pair()))
    assert "nothing wrong with them" in report.render()
    assert report.trainable
