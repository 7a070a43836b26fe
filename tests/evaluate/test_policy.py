"""A policy file is a policy, or one clear line about what is wrong with it."""

import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipguard.cli import main
from flipguard.errors import PolicyError
from flipguard.evaluate.policy import KEYS, LARGEST, SEVERITY, SliceLimit, read_policy

WHOLE = b"""# what a release must keep to
limit: 5e-2
alpha: 0.01
estimand: excess
slices:
  safety: {limit: 0.02, min_n: 200}
  "1": {limit: 0.1}
max_invalid: 0
max_unmatched: 0.01
severity: {max_mean: 0.1, max_worst: 2}
refusals: {limit: 0.03}
"""


def test_every_key_is_read(write):
    policy = read_policy(write("p.yaml", WHOLE))
    assert (policy.limit, policy.alpha, policy.estimand) == (0.05, 0.01, "excess")
    assert policy.slices == {"safety": SliceLimit(0.02, 200), "1": SliceLimit(0.1, 10)}
    assert (policy.max_invalid, policy.max_unmatched, policy.refusals) == (0.0, 0.01, 0.03)
    assert policy.severity == {"mean": 0.1, "max": 2.0}
    assert policy.sha256 == hashlib.sha256(WHOLE).hexdigest()
    assert policy.content.encode() == WHOLE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limti: 0.05", "p.yaml: unknown key 'limti'. Did you mean 'limit'? Choose one of: limit, slices, "),
        ("limit: 5", "p.yaml: limit: 5 is not possible: choose a share between 0 and 1; 0.05 is 5 %."),
        ("limit: -0.1", "p.yaml: limit: -0.1 is not possible"),
        ("limit: .nan", "p.yaml: limit: nan is not possible"),
        ("limit: true", "p.yaml: limit: True is not possible"),
        ("limit: '0.05'", "p.yaml: limit: '0.05' is not possible"),
        ("limit:", "p.yaml: limit: nothing is not possible"),
        ("limit: [0.1]", "p.yaml: limit: a list is not possible"),
        ("limit: 0.1\nlimit: 0.2", "p.yaml:2: not valid YAML: "),
        ("limit: {", "p.yaml:1: not valid YAML: "),
        ("limit: 2001-13-45", "p.yaml: not valid YAML: "),
        ("limit: !!python/object:os.system {}", "p.yaml:1: not valid YAML: "),
        ("alpha: 0.05", "p.yaml: sets no limit. Give at least one of: limit, slices, severity, refusals."),
        ("", "p.yaml: nothing is not possible: give a mapping with the keys limit, slices, "),
        ("- limit: 1", "p.yaml: a list is not possible"),
        ("1: 2", "p.yaml: the key 1 is not a word. Put it in quotes."),
        ("limit: 0.1\nalpha: 0.5", "p.yaml: alpha: 0.5 is not possible: choose a number between 1e-6 and 0.5"),
        ("limit: 0.1\nestimand: net", "p.yaml: estimand: unknown value 'net'. Choose one of: nfr, excess."),
        ("limit: 0.1\nestimand: [nfr]", "p.yaml: estimand: unknown value a list."),
        ("refusals: {limit: 0.1}\nestimand: nfr", "p.yaml: estimand: says what 'limit' is held against"),
        ("refusals: 0.1", "p.yaml: refusals: 0.1 is not possible: give a mapping with the keys limit."),
        ("refusals: {}", "p.yaml: refusals: has no limit. Add limit: "),
        ("slices: {}", "p.yaml: slices: is empty. Name a category"),
        ("slices: [a]", "p.yaml: slices: a list is not possible: give a mapping."),
        ("slices: {a: 0.1}", "p.yaml: slices.a: 0.1 is not possible: give a mapping with the keys limit, min_n."),
        ("slices: {1: {limit: 0.1}}", "p.yaml: slices: the key 1 is not a word. Put it in quotes."),
        ("slices: {a: {min_n: 3}}", "p.yaml: slices.a: has no limit."),
        ("slices: {a: {limit: 0.1, min_n: 0.5}}", "p.yaml: slices.a.min_n: 0.5 is not possible: choose a whole number"),
        ("slices: {a: {limit: 0.1, min_n: 0}}", "p.yaml: slices.a.min_n: 0 is not possible"),
        ('slices: {"a\\nb": {limit: 2}}', r"p.yaml: slices.'a\nb'.limit: 2 is not possible"),
        ("severity: {}", "p.yaml: severity: is empty. Choose one of: max_mean, "),
        ("severity: {max_mean: -1}", "p.yaml: severity.max_mean: -1 is not possible: choose a number of 0 or more"),
        ("severity: {max_mean: .inf}", "p.yaml: severity.max_mean: inf is not possible"),
        ("severity: {max_mean: 1" + "0" * 400 + "}", "p.yaml: severity.max_mean: a number this large is not possible"),
        ("severity: {mean: 1}", "p.yaml: severity: unknown key 'mean'. Did you mean 'max_mean'?"),
        ("limit: &a [*a]", "p.yaml: limit: a list is not possible"),
        ("[" * 1200, "p.yaml: not valid YAML: "),
        ("limit: 0.1\n" + "#" * LARGEST, "p.yaml: is larger than 100,000 bytes."),
    ],
)
def test_an_impossible_policy_is_one_line_with_file_key_value_and_way_out(text, told, write, tmp_path):
    with pytest.raises(PolicyError) as raised:
        read_policy(write("p.yaml", text.encode()))
    message = str(raised.value).removeprefix(f"{tmp_path}/")
    assert message.startswith(told)
    assert "\n" not in message
    assert len(message) < 500


def test_a_policy_that_cannot_be_read_is_one_line_too(write, tmp_path):
    for path, told in (
        (tmp_path / "none.yaml", "no such policy"),
        (tmp_path, "cannot be read"),
        (write("latin.yaml", b"limit: 0.1 # \xe9"), "not UTF-8 text"),
    ):
        with pytest.raises(PolicyError, match=told):
            read_policy(path)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["nfr", "a"])
NAMES = st.sampled_from([*KEYS, *SEVERITY, "min_n"]) | st.text(max_size=5)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
PAGES = st.text(max_size=80) | st.text("limitalpha: {}[]&*!|>-#\n\t'\"0.5e", max_size=60)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(page=PAGES | st.dictionaries(NAMES, TREES, max_size=4).map(lambda tree: json.dumps(tree)))
def test_any_file_is_a_policy_or_one_clear_error(page, write):
    try:
        policy = read_policy(write("p.yaml", page.encode("utf-8", "replace")))
    except PolicyError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert policy.limit is not None or policy.slices or policy.severity or policy.refusals is not None


def test_the_command_line_shows_the_one_line_and_reads_no_answers(write, capsys):
    policy = write("p.yaml", b"limit: 7\n")
    assert main(["compare", "none.jsonl", "none.jsonl", "--policy", str(policy)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_policy_nothing_of_it_is_loaded(write):
    run = str(write("run.jsonl", [{"id": 1, "score": 1}]))
    code = (
        "import sys; from pathlib import Path; from flipguard.evaluate.compare import *;"
        f"compare_files(Path({run!r}), Path({run!r}), Options()); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ruamel.yaml", "flipguard.evaluate.policy", "flipguard.evaluate.rules"} & set(loaded)
