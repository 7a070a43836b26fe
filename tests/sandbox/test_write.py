import json
import shlex
import textwrap
from pathlib import Path

import pytest

from flipguard import cli
from flipguard.errors import DataError
from flipguard.files import read_jsonl
from flipguard.sandbox import write
from flipguard.sandbox.reward import true_reward
from flipguard.sandbox.write import PREFERENCE, RECIPES, SFT, TEST, write_sandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "sandbox"
    write_sandbox(out, seed=3)
    return out


@pytest.fixture
def small(monkeypatch):
    """A twentieth of the rows, for what does not depend on how many there are."""
    for name in ("SFT", "PREFERENCE", "REWARD", "TEST"):
        counts = getattr(write, name)
        monkeypatch.setattr(write, name, {kind: count // 20 for kind, count in counts.items()})


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(sandbox, name):
    return [row for _, row in read_jsonl(sandbox / "data" / f"{name}.jsonl")]


@pytest.mark.usefixtures("small")
def test_the_same_seed_writes_the_same_bytes_and_another_asks_other_questions(tmp_path):
    for name, seed in (("ours", 3), ("again", 3), ("other", 4)):
        write_sandbox(tmp_path / name, seed=seed)
    ours, again, other = (files_of(tmp_path / name) for name in ("ours", "again", "other"))
    assert again == ours
    assert other.keys() == ours.keys()
    assert other["data/test_prompts.jsonl"] != ours["data/test_prompts.jsonl"]
    assert other["model/model.safetensors"] != ours["model/model.safetensors"]


def test_no_training_row_shares_its_prompt_with_a_test_row(sandbox):
    asked = [
        {row["prompt"][0]["content"] for row in rows_of(sandbox, name)}
        for name in ("sft", "preference_prompts", "reward_prompts")
    ]
    tested = {row["prompt"][0]["content"] for row in rows_of(sandbox, "test_prompts")}
    chosen_on = {row["prompt"][0]["content"] for row in rows_of(sandbox, "validation_prompts")}
    assert len(tested) == sum(TEST.values()) >= 1000
    assert not tested & chosen_on
    assert not any(trained_on & (tested | chosen_on) for trained_on in asked)


def test_rows_are_what_the_commands_read(sandbox):
    sft, prompts, tests = (rows_of(sandbox, name) for name in ("sft", "preference_prompts", "test_prompts"))
    assert [len(rows) for rows in (sft, prompts, tests)] == [sum(c.values()) for c in (SFT, PREFERENCE, TEST)]
    assert set(sft[0]) == {"id", "prompt", "completion", "category"}
    assert set(tests[0]) == {"id", "prompt", "category", "reference"}
    assert len({row["id"] for row in tests}) == len(tests)
    scores = true_reward([row["prompt"] for row in tests], [row["reference"] for row in tests])
    assert set(scores) == {1.0}


@pytest.mark.usefixtures("small")
def test_writing_into_the_same_sandbox_again_keeps_what_the_commands_put_there(tmp_path):
    write_sandbox(tmp_path, seed=3)
    made = tmp_path / "runs" / "sft" / "note.txt"
    made.parent.mkdir(parents=True)
    made.write_text("trained")
    before = files_of(tmp_path)
    write_sandbox(tmp_path, seed=3)
    assert files_of(tmp_path) == before


def test_a_sandbox_of_another_seed_is_left_alone(sandbox):
    with pytest.raises(DataError, match=r'holds another sandbox, .*"seed":3'):
        write_sandbox(sandbox, seed=4)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="is not empty and is no sandbox"):
        write_sandbox(tmp_path, seed=0)
    with pytest.raises(DataError, match="is not empty and is no sandbox"):
        write_sandbox(tmp_path / "thesis.tex", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_recipes_differ_in_the_constraint_and_in_where_they_write(sandbox):
    yaml = pytest.importorskip("yaml")
    recipes = {name: yaml.safe_load((sandbox / "recipes" / f"{name}.yaml").read_text()) for name in RECIPES}
    assert {recipe["trainer"]["seed"] for recipe in recipes.values()} == {3}
    for name, recipe in recipes.items():
        where = recipe["trainer"].pop("output_dir")
        assert where == f"../runs/{name}"
        if name not in ("sft", "trunk", "reward"):
            assert recipe.pop("constraint")
            assert recipe["model"] == "../runs/sft"
            assert recipe == recipes[name.partition("_")[0]]


def test_the_model_answers_as_the_help_tells_to_ask_it(sandbox, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    prompts = Path("world/data/preference_prompts.jsonl")
    prompts.parent.mkdir(parents=True)
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows_of(sandbox, "preference_prompts")[:4]))
    Path("world/runs").mkdir()
    Path("world/runs/sft").symlink_to(sandbox / "model")
    shell = textwrap.dedent(cli.sandbox.__doc__).replace("\\\n", " ")
    (asks,) = (line for line in shell.splitlines() if "flipguard generate" in line)
    assert cli.main(shlex.split(asks)[1:]) == 0
    assert len(Path("world/samples.jsonl").read_text().splitlines()) == 8


def test_the_model_folder_is_an_ordinary_one(sandbox):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(sandbox / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(sandbox / "model")
    assert model.config.vocab_size == len(tokenizer)
    asked = tokenizer.apply_chat_template(
        rows_of(sandbox, "test_prompts")[0]["prompt"], add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**asked, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] <= asked["input_ids"].shape[1] + 3
