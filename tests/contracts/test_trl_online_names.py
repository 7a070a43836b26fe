"""A canary for the online trainers: every name of TRL's that their guard touches. Where one fails, TRL changed."""

import dataclasses
import inspect

import pytest
import transformers
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import RepeatSampler

TRAINERS = {RLOOTrainer: RLOOConfig, GRPOTrainer: GRPOConfig}
OURS = {"gamma", "flip_margin", "gate", "divergence", "reduction", "reference_cache"}
READ = {
    *("max_completion_length", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs"),
    *("sync_ref_model", "seed", "per_device_train_batch_size", "generation_batch_size", "steps_per_generation"),
    *("num_generations", "num_iterations", "num_generations_eval", "disable_dropout", "temperature"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs", "gradient_accumulation_steps", "max_steps"),
}
HAS = {
    *("_metrics", "_pending_extra_logs", "_pending_metrics", "_step", "reward_weights", "reward_func_names"),
    *("use_vllm", "num_generations", "num_iterations", "beta", "eos_token_ids", "ref_model", "processing_class"),
}

pytestmark = pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_generate", ["self", "prompts"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_compute_loss", ["self", "model", "inputs"]),
    ],
)
def test_the_methods_we_override_or_call_take_what_they_took(trainer, name, expected):
    found = parameters(vars(trainer)[name])
    assert found == expected, f"{trainer.__name__}.{name} takes {found}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("create_optimizer", ["self", "model"]),
        ("save_model", ["self", "output_dir", "_internal_call"]),
        ("_save_rng_state", ["self", "output_dir"]),
        ("_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
        ("_get_train_sampler", ["self", "train_dataset"]),
    ],
)
def test_the_methods_of_transformers_we_override_take_what_they_took(trainer, name, expected):
    found = parameters(vars(transformers.Trainer)[name])
    assert found == expected, f"transformers.Trainer.{name} takes {found}"
    own = vars(trainer).get(name)
    assert own is None or len(parameters(own)) == len(expected), f"{trainer.__name__}.{name} takes {parameters(own)}"


def test_a_checkpoint_is_whole_when_the_random_numbers_of_all_are_saved(trainer):  # noqa: ARG001 - of the module
    """Where processes wait for each other; after it only the main one writes."""
    source = inspect.getsource(transformers.Trainer._save_checkpoint)
    assert source.count("self._save_rng_state(output_dir)") == 1
    assert source.index("self.save_model(") < source.index("self._save_rng_state(")


def test_steps_call_back_where_the_critic_is_clipped_and_forgotten(trainer):  # noqa: ARG001 - of the module
    source = inspect.getsource(transformers.Trainer)
    assert 0 < source.index("callback_handler.on_pre_optimizer_step") < source.index("callback_handler.on_step_end")


def test_the_sampler_has_what_the_order_of_an_epoch_is_made_of(trainer):
    assert "RepeatSampler(" in inspect.getsource(trainer._get_train_sampler)
    found = vars(RepeatSampler(range(4), 1, seed=3))
    assert {"shuffle", "seed", "num_samples", "generator"} <= found.keys(), found.keys()


def test_log_probs_are_read_by_model_ids_mask_and_width(trainer):
    found = parameters(trainer._get_per_token_logps_and_entropies)[:5]
    assert found == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"], found


def test_the_sampler_returns_ids_second_and_texts_where_we_look(trainer):
    source = inspect.getsource(trainer._generate)
    order = {"RLOOTrainer": "return prompt_ids, completion_ids, completions\n"}
    expected = order.get(trainer.__name__, "return prompt_ids, completion_ids, tool_mask, completions, ")
    assert expected in source, f"{trainer.__name__}._generate returns something else"


@pytest.mark.parametrize("name", sorted(HAS))
def test_the_trainer_has_what_we_read(trainer, name):
    sources = inspect.getsource(trainer.__init__) + inspect.getsource(transformers.Trainer.__init__)
    assert f"self.{name}" in sources, f"{trainer.__name__} has no {name}"


def test_the_batch_has_what_the_guard_reads(trainer):
    source = inspect.getsource(trainer._generate_and_score_completions)
    missing = [key for key in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask") if key not in source]
    assert not missing, f"{trainer.__name__} makes batches without {missing}"


def test_an_answer_that_nobody_grades_is_told_in_the_words_we_filter(trainer):
    assert "returned None" in inspect.getsource(trainer._calculate_rewards)


def test_only_grpo_divides_by_the_micro_batches_itself(trainer):
    divides = "current_gradient_accumulation_steps" in inspect.getsource(trainer._compute_loss)
    assert divides == (trainer is GRPOTrainer), f"{trainer.__name__} scales its loss for accumulation in another way"


def test_the_config_has_the_fields_we_read_and_none_that_ours_would_hide(trainer):
    theirs = {field.name for field in dataclasses.fields(TRAINERS[trainer])}
    assert theirs >= READ, f"{TRAINERS[trainer].__name__} has no {READ - theirs}"
    assert not theirs & OURS, f"{TRAINERS[trainer].__name__} has its own {theirs & OURS}"


def test_ppo_finds_what_it_builds_on(trainer):
    if trainer is not RLOOTrainer:
        return
    source = inspect.getsource(trainer._generate_and_score_completions)
    old, ref = (
        source.index("old_per_token_logps, _, _ = self._get"),
        source.index("ref_per_token_logps, _, _ = self._get"),
    )
    assert old < ref, "the log-probs of pi_0 are read first"
    assert source.count("self._get_per_token_logps_and_entropies(") == 3, (
        "log-probs are read more often than PPO expects"
    )
    assert "self.num_generations" in inspect.getsource(trainer._get_train_sampler)
    assert "num_generations < 2" in inspect.getsource(RLOOConfig.__post_init__), "one answer is refused elsewhere"
    theirs = {field.name for field in dataclasses.fields(RLOOConfig)}
    ours = {
        "discount",
        "gae_lambda",
        "value_clip",
        "critic",
        "critic_learning_rate",
        "ema_decay",
        "pretraining",
        "ptx_coef",
    }
    assert not theirs & ours
    assert theirs >= {
        "beta",
        "epsilon",
        "num_iterations",
        "normalize_advantages",
        "reward_clip_range",
        "epsilon_high",
        "router_aux_loss_coef",
    }
    for name in ("reward_clip_range", "normalize_advantages"):
        assert f"self.{name}" in inspect.getsource(trainer.__init__), f"{trainer.__name__} has no {name}"
    assert "return logps, entropies, aux_loss" in inspect.getsource(trainer._get_per_token_logps_and_entropies)
