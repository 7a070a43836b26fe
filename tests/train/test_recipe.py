"""A recipe is right before any compute is spent, or one line says what is wrong with it."""

import inspect
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.errors import RecipeError
from flipguard.objective import constraint, strength
from flipguard.objective.divergences import DIVERGENCE_NAMES
from flipguard.objective.preference import PREFERENCE_LOSSES
from flipguard.train.constraintspec import Divergence, Gate, Schedule
from flipguard.train.guarded_loss import FLAGS, RANGES
from flipguard.train.onlinespec import ONLINE
from flipguard.train.recipe import Algorithm, load_recipe

BASE = "algorithm: dpo\nmodel: ./m\ndata: {train: pairs.jsonl}\n"
RLOO = BASE.replace("dpo", "rloo")
SOUND = RLOO + "reward: ./rm\n"


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "r.yaml").write_text(text)
        return tmp_path / "r.yaml"

    return write


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            BASE + "constraint: {gama: 1}",
            "constraint: unknown key 'gama'. Did you mean 'gamma'? Choose one of: adaptive_rate, divergence",
        ),
        (
            BASE + "constraint: {gamma: -1}",
            "constraint.gamma: -1 is not possible: input should be greater than or equal to 0",
        ),
        (BASE + "constraint: {gamma: .nan}", "constraint.gamma: nan is not possible"),
        (BASE + "constraint: {gate: offf}", "constraint.gate: unknown value 'offf'. Did you mean 'off'?"),
        (BASE + "constraint: {gate: soft}", "'weights: [a, b]' and 'gate: soft' go together"),
        (BASE + "constraint: {gate: flip, weights: [0.1, 1]}", "'weights: [a, b]' and 'gate: soft' go together"),
        (BASE + "constraint: {gate: soft, weights: [-1, 1]}", "weights.0: -1 is not possible"),
        (BASE + "modle: x", "unknown key 'modle'. Did you mean 'model'?"),
        (BASE + "loss: {beta: high}", "loss.beta: 'high' is not possible"),
        (BASE + "trainer: 3", "trainer: 3 is not possible"),
        (BASE + "model: again", "duplicate key"),
        ("algorithm: dpp\nmodel: x\ndata: {train: x}", "unknown value 'dpp'. Did you mean 'dpop'?"),
        ("algorithm: dpo\ndata: {train: x}", "model: missing"),
        ("algorithm: dpo\nmodel: x\ndata: {}", "data.train: missing"),
        ("algorithm: dpo\nmodel: x\ndata: {train: x, max_prompt_tokens: 0}", "max_prompt_tokens: 0 is not possible"),
        ("algorithm: sft\nmodel: x\ndata: {train: x}\nconstraint: {gamma: 1}", "constraint: has no meaning for 'sft'"),
        (
            "algorithm: dpo\nmodel: x\ndata: {train: x, split: {parts: [.inf, 1], take: 1}}",
            "data.split.parts.0: inf is not possible",
        ),
        (BASE + "reward: ./rm", "reward: has no meaning for 'dpo', which samples no answers; remove it."),
        (BASE + "rollout: {temperature: 1}", "rollout: has no meaning for 'dpo'"),
        (RLOO, "reward: missing. 'rloo' learns from one: a model folder or hub id, a URL"),
        (RLOO + "reward: {kind: classifier}", "reward.path: missing. Add it."),
        (RLOO + "reward: {path: ./rm, batchsize: 4}", "reward: unknown key 'batchsize'. Did you mean 'batch_size'?"),
        (RLOO + "reward: {path: ./rm, kind: clasifier}", "reward.kind: unknown value 'clasifier'. Did you mean"),
        (SOUND + "critic: ./rm", "critic: has no meaning for 'rloo', only for 'ppo'; remove it."),
        (SOUND.replace("rloo", "ppo") + "rollout: {samples: 2}", "rollout.samples: 'ppo' learns from one answer"),
        (SOUND + "rollout: {temperature: 0}", "rollout.temperature: with 0 all answers to a prompt are the same"),
        (SOUND + "rollout: {temperature: -1}", "rollout.temperature: -1 is not possible"),
        (SOUND + "rollout: {samples: 1}", "rollout.samples: 1 is not possible"),
        (SOUND + "rollout: {vllm: yes please}", "rollout.vllm: unknown value 'yes please'. Choose one of: off, server"),
        (SOUND + "constraint: {gate: token}", "constraint.gate: 'token' compares a given answer"),
        (SOUND + "constraint: {flips: f.jsonl, flip_weight: 2}", "constraint.flips: speaks of given answers"),
        (SOUND + "reference: ./other", "reference: online, π_0 is the model as it is at the start; remove it."),
        (SOUND + "select: {prompts: p.jsonl, scorer: ./rm}", "select: cannot go with an online algorithm"),
        (SOUND + "speed: {packing: off}", "speed.packing: has no meaning online"),
        (
            "algorithm: grpo\nmodel: ./m\nreward: ./rm\ndata: {train: x, max_completion_tokens: 9}",
            "data.max_completion_tokens: has no meaning online; rollout.max_new_tokens says",
        ),
        (
            "algorithm: grpo\nmodel: ./m\nreward: ./rm\ndata: {train: [a, {path: b, relabel: ./rm}]}",
            "data.train.1.relabel: orders pairs, and online nothing but their prompts is read",
        ),
        *(
            (f"algorithm: dpo\nmodel: x\ndata: {{train: x}}\nspeed: {{slice_tokens: {wrong}}}", "speed.slice_tokens: ")
            for wrong in ("maybe", 0, 5.5, "true")
        ),
        ("- dpo", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_an_impossible_recipe_says_place_value_and_way_out(written, text, says):
    path = written(text)
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_off_is_a_word_and_1e_6_a_number(written):
    recipe = load_recipe(written(BASE + "constraint: {gate: off}\ntrainer: {learning_rate: 1e-6}"))
    assert recipe.constraint.gate == "off"
    assert recipe.trainer["learning_rate"] == 1e-6


def test_the_guard_of_the_paper_is_the_default(written):
    constraint = load_recipe(written(BASE)).constraint
    assert (constraint.gamma, constraint.epsilon, constraint.gate) == (0.01, 0.0, "flip")
    assert (constraint.divergence, constraint.reduction) == ("ce", "sum")


def test_online_the_margin_of_the_paper_is_the_default_and_theirs_stay_theirs(written):
    recipe = load_recipe(written(SOUND + "loss: {beta: 0.1, loss_type: dr_grpo, reward_clip_range: [-5, 5]}"))
    assert (recipe.constraint.epsilon, recipe.constraint.gamma) == (0.1, 0.01)
    assert recipe.loss["loss_type"] == "dr_grpo"
    assert recipe.reward.path == str(written(SOUND).parent / "rm")
    assert recipe.rollout.samples is None
    assert load_recipe(written(RLOO + "reward: http://127.0.0.1:8000/score")).reward.path.startswith("http://127")
    assert load_recipe(written(RLOO + "reward: my.scores:even")).reward.path == "my.scores:even"
    assert load_recipe(written(SOUND), {"reward.batch_size": "2"}).reward.batch_size == 2


def test_paths_in_a_recipe_start_at_its_folder_and_hub_ids_stay(written, tmp_path):
    (tmp_path / "pairs.jsonl").touch()
    recipe = load_recipe(written(BASE + "reference: owner/model"))
    assert recipe.model.path == str(tmp_path / "m")
    assert [source.path for source in recipe.data.train] == [str(tmp_path / "pairs.jsonl")]
    assert recipe.reference.path == "owner/model"
    assert recipe.output_dir == tmp_path / "r"


def test_paths_in_an_override_start_at_the_current_folder(written, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(written(BASE), {"trainer.output_dir": "out", "model": "./other"})
    assert str(recipe.output_dir) == "out"
    assert recipe.model.path == "./other"


def test_what_was_said_as_a_path_is_never_taken_for_a_hub_id(written, tmp_path, monkeypatch):
    written(BASE)
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("r.yaml")).model.path == "./m"
    assert load_recipe(Path("r.yaml"), {"model": "./nowhere"}).model.path == "./nowhere"
    assert load_recipe(Path("r.yaml"), {"reference": "owner/model"}).reference.path == "owner/model"


def test_an_override_is_checked_like_the_file_and_named_like_the_command_line(written):
    path = written(BASE + "constraint: {gamma: 0.5}")
    assert load_recipe(path, {"constraint.gamma": "0.1"}).constraint.gamma == 0.1
    assert load_recipe(path, {"model.dtype": "bfloat16"}).model.path.endswith("/m")
    with pytest.raises(RecipeError, match=r"^--constraint.gamma: -2 is not possible"):
        load_recipe(path, {"constraint.gamma": "-2"})
    with pytest.raises(RecipeError, match=r"^--model\.dtype: --model says 'other'. Say one of the two\."):
        load_recipe(path, {"model": "other", "model.dtype": "bfloat16"})
    with pytest.raises(RecipeError, match=r"^--constraint.gama: unknown key 'gama'. Did you mean 'gamma'"):
        load_recipe(path, {"constraint.gama": "1"})


def test_a_recipe_offers_exactly_what_the_tables_hold():
    assert get_args(Algorithm) == (
        "sft",
        "reward",
        *PREFERENCE_LOSSES,
        *ONLINE,
    )
    assert get_args(Divergence) == DIVERGENCE_NAMES
    assert get_args(Gate) == get_args(constraint.Gate)
    assert get_args(Schedule) == get_args(strength.Schedule)


def test_every_hyper_parameter_of_every_loss_has_a_range():
    losses = [row.function for row in PREFERENCE_LOSSES.values()]
    known = {name for loss in losses for name in inspect.signature(loss).parameters} - {"logps"}
    assert known == RANGES.keys() | FLAGS


@given(text=st.text(max_size=80))
def test_any_text_is_a_recipe_or_one_clear_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "r.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert len(str(raised.value).splitlines()) == 1
