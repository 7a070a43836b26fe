"""A canary: every name of TRL's that the guarded trainers touch. Where one fails, TRL changed; its message says how."""

import ast
import dataclasses
import inspect
import textwrap

import pytest
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from flipguard.integrations.trl import GuardedDPOConfig, GuardedKTOConfig

TRAINERS = {DPOTrainer: DPOConfig, KTOTrainer: KTOConfig}
LOGPS = {DPOTrainer: {"ref_chosen_logps", "ref_rejected_logps"}, KTOTrainer: {"ref_logps", "ref_KL_logps"}}
INPUTS = {DPOTrainer: {"input_ids", "completion_mask"}, KTOTrainer: {"input_ids", "completion_mask", "label"}}

pytestmark = pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)


def tree_of(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def attributes(function, owner):
    """What `function` reads or sets of the name `owner`."""
    nodes = (node for node in ast.walk(tree_of(function)) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == owner}


def strings(function):
    return {node.value for node in ast.walk(tree_of(function)) if isinstance(node, ast.Constant)}


def test_compute_loss_is_the_override_and_takes_what_we_give(trainer):
    names = list(inspect.signature(trainer.compute_loss).parameters)
    assert names == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"], (
        f"{trainer.__name__}.compute_loss has another signature: {names}"
    )


def test_the_reference_has_a_public_method(trainer):
    names = list(inspect.signature(trainer.compute_ref_log_probs).parameters)
    assert names == ["self", "model", "inputs"], f"{trainer.__name__}.compute_ref_log_probs takes {names}"


def test_the_constructor_names_what_we_read(trainer):
    names = list(inspect.signature(trainer).parameters)
    assert names[:3] == ["model", "ref_model", "args"], f"{trainer.__name__} begins with {names[:3]}"
    assert "peft_config" in names, f"{trainer.__name__} has no peft_config"


@pytest.mark.parametrize("name", ["precompute_ref_logps", "ref_model", "_metrics"])
def test_the_loss_reads_the_attributes_we_set(trainer, name):
    assert name in attributes(trainer._compute_loss, "self"), f"{trainer.__name__}._compute_loss reads no self.{name}"


def test_the_constructor_sets_what_we_read(trainer):
    missing = {"_is_vision_dataset", "ref_model", "_metrics"} - attributes(trainer.__init__, "self")
    assert not missing, f"{trainer.__name__}.__init__ sets no {missing}"


def test_the_loss_reads_the_references_from_the_batch(trainer):
    missing = (LOGPS[trainer] | INPUTS[trainer]) - strings(trainer._compute_loss)
    assert not missing, f"{trainer.__name__}._compute_loss reads no {missing} from the batch"


def test_the_policy_is_only_called_never_asked_for_anything_else(trainer):
    """Our stand-in is a callable and nothing more."""
    asked = attributes(trainer._compute_loss, "model")
    assert not asked, f"{trainer.__name__}._compute_loss asks the policy for {asked}"


def test_the_policys_forward_is_fused_and_gives_log_probs(trainer):
    assert "log_probs" in attributes(trainer._compute_loss, "outputs"), "the output has no log_probs any more"
    calls = [node for node in ast.walk(tree_of(trainer._compute_loss)) if isinstance(node, ast.Call)]
    forwards = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "model"]
    fused = [call for call in forwards if "fused_lm_head" in {keyword.arg for keyword in call.keywords}]
    assert len(fused) == 1, f"{trainer.__name__}._compute_loss has {len(fused)} fused forwards of the policy, not one"


def test_the_loss_is_a_mean_that_trainer_scales_for_accumulation(trainer):
    assert trainer.loss_is_scaled_for_ga is False, f"{trainer.__name__} scales its loss for accumulation itself"


def test_metrics_are_averaged_as_numbers_until_the_next_log(trainer):
    assert "_metrics" in attributes(trainer.log, "self"), f"{trainer.__name__}.log does not read self._metrics"
    assert "sum(val) / len(val)" in inspect.getsource(trainer.log), f"{trainer.__name__}.log averages in another way"


@pytest.mark.parametrize("name", ["precompute_ref_log_probs", "sync_ref_model", "bf16", "fp16", "torch_compile"])
def test_the_config_has_the_fields_we_read(trainer, name):
    config = TRAINERS[trainer]
    assert name in {field.name for field in dataclasses.fields(config)}, f"{config.__name__} has no {name}"


def test_no_field_of_ours_hides_one_of_trls(trainer):
    ours = {GuardedDPOConfig, GuardedKTOConfig}
    (guarded,) = (config for config in ours if issubclass(config, TRAINERS[trainer]))
    theirs = {field.name for field in dataclasses.fields(TRAINERS[trainer])}
    hidden = theirs & {"gamma", "epsilon", "gate", "divergence", "reduction"}
    assert not hidden, f"{guarded.__name__} would hide TRL's own {hidden}"


def test_what_changes_the_likelihood_of_an_answer_is_what_we_refuse(trainer):
    names = {field.name for field in dataclasses.fields(TRAINERS[trainer]) if field.name.startswith("ld_")}
    assert names <= {"ld_alpha"}, f"{TRAINERS[trainer].__name__} has new length options: {names}"
