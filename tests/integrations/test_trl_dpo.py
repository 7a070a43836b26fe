"""The guarded DPO trainer is TRL's loss plus the term of Eq. 11 computed by hand, in every way TRL can train."""

import copy

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from trl import DPOTrainer

from flipguard.integrations.trl import GuardedDPOConfig, GuardedDPOTrainer

pytestmark = [
    pytest.mark.slow,
    # transformers 5.23 renames what TRL's own code still reads and sets: it becomes activation_checkpointing
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
LOSSES = {
    **{name: {"loss_types": [name]} for name in ("sigmoid", "hinge", "ipo", "nca_pair", "robust", "bco_pair", "sft")},
    **{name: {"loss_types": [name]} for name in ("sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down")},
    **{name: {"loss_types": [name]} for name in ("discopop", "sigmoid_norm")},
    "exo_pair": {"loss_types": ["exo_pair"], "label_smoothing": 0.1},
    "mpo": {"loss_types": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    "forward_kl": {"f_divergence_type": "forward_kl"},
    "js": {"f_divergence_type": "js_divergence"},
}


@pytest.fixture
def make_trainer(tmp_path, make_model, tokenizer, rows, arguments):
    def make(
        model=None,
        *,
        cls=GuardedDPOTrainer,
        peft=None,
        ref_model=None,
        eval_rows=None,
        **options,
    ):
        return cls(
            make_model() if model is None else model,
            ref_model,
            args=GuardedDPOConfig(str(tmp_path / "run"), **{**arguments, **options}),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=eval_rows and Dataset.from_list(eval_rows),
            processing_class=tokenizer,
            peft_config=peft,
        )

    return make


def batch_of(trainer):
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def logps_by_hand(model, batch, precision=torch.float64):
    """[2P, T-1] from the model's own logits, in float64; no code of TRL's and none of ours."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits = logits[:, -batch["input_ids"].size(1) :]  # prompt tuning puts virtual tokens in front
    logps = logits[:, :-1].to(precision).log_softmax(-1)
    return logps.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1) * batch["completion_mask"][:, 1:]


def reference_by_hand(trainer, batch):
    with torch.no_grad(), trainer.accelerator.autocast():
        if trainer.ref_model is not None:
            return logps_by_hand(trainer.ref_model, batch)
        if "ref" in trainer.model.peft_config:
            trainer.model.set_adapter("ref")
            logps = logps_by_hand(trainer.model, batch)
            trainer.model.set_adapter("default")
            return logps
        with trainer.model.disable_adapter():
            return logps_by_hand(trainer.model, batch)


def term_by_hand(trainer, batch, ref, *, gamma, gate="flip", reduction="sum", epsilon=0.0):
    """γ/P · Σ over the chosen answers that flipped of -log π, from the model's own logits."""
    with trainer.accelerator.autocast():
        logps = logps_by_hand(trainer.model, batch)
    total = 0.0
    pairs = len(logps) // 2
    flipped = 0
    for row in range(pairs):
        worse = ref[row].sum() - logps[row].sum() > epsilon
        flipped += bool(worse)
        if worse or gate == "always":
            length = batch["completion_mask"][row].sum() if reduction == "mean" else 1
            total = total - logps[row].sum() / length
    return gamma * total / pairs, flipped / pairs


def gradients(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in trainer.model.parameters() if parameter.grad is not None]


def assert_equal(trainer, batch, term, *, rel=1e-6):
    """The guarded loss and its gradients are TRL's own plus the term."""
    ours = trainer.compute_loss(trainer.model, batch)
    theirs = DPOTrainer.compute_loss(trainer, trainer.model, batch) + term
    assert ours.item() == pytest.approx(theirs.item(), rel=rel, abs=rel)
    for mine, other in zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True):
        assert (mine - other).norm() <= 10 * rel * other.norm() + 1e-8


def lora_already(make_model):
    """A model with an adapter that was trained before."""
    model = get_peft_model(make_model(), LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


WAYS = ["full", "given reference", "new adapter", "adapter and given reference", "old adapter", "prompt tuning"]


def in_the_way(way, make_trainer, make_model, **options):
    match way:
        case "full":
            return make_trainer(**options)
        case "given reference":
            return make_trainer(ref_model=make_model(), **options)
        case "new adapter":
            return make_trainer(peft=LORA, **options)
        case "adapter and given reference":
            return make_trainer(peft=LORA, ref_model=make_model(), **options)
        case "old adapter":
            return make_trainer(lora_already(make_model), **options)
        case "prompt tuning":
            prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
            return make_trainer(peft=prompt, **options)


@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_are_trls_plus_the_term_by_hand(way, make_trainer, make_model, shifted):
    trainer = in_the_way(way, make_trainer, make_model, gamma=0.3)
    batch = batch_of(trainer)
    ref = reference_by_hand(trainer, batch)
    trainer.model.train()
    shifted(trainer.model, 0.5 if way == "prompt tuning" else 0.05)
    term, rate = term_by_hand(trainer, batch, ref, gamma=0.3)
    assert 0 < rate < 1, "all or none flipped, so little was compared"
    assert_equal(trainer, batch, term)
    assert trainer._metrics["train"]["flip/rate"] == pytest.approx([rate] * 6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("gate", ["flip", "always"])
def test_gates_reductions_and_epsilon_mean_what_they_say(gate, reduction, make_trainer, shifted):
    epsilon = 1.0
    trainer = make_trainer(gamma=0.3, gate=gate, reduction=reduction, epsilon=epsilon)
    batch = batch_of(trainer)
    ref = reference_by_hand(trainer, batch)
    shifted(trainer.model, 0.1)
    options = {"gate": gate, "reduction": reduction}
    term, rate = term_by_hand(trainer, batch, ref, gamma=0.3, epsilon=epsilon, **options)
    assert 0 < rate < term_by_hand(trainer, batch, ref, gamma=0.3, **options)[1], "epsilon made no difference"
    assert_equal(trainer, batch, term)


@pytest.fixture(scope="module")
def kept_trainer(tmp_path_factory, make_model, tokenizer, rows, arguments):
    config = GuardedDPOConfig(str(tmp_path_factory.mktemp("run")), gamma=0.3, **arguments)
    data = Dataset.from_list(rows)
    return GuardedDPOTrainer(make_model(), args=config, train_dataset=data, processing_class=tokenizer)


@pytest.fixture
def one_trainer(kept_trainer):
    Accelerator()  # all share their state, and whoever makes TrainingArguments in between empties it
    return kept_trainer


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_trl_can_be_guarded(name, one_trainer, shifted, monkeypatch):
    usual = {
        "loss_types": ["sigmoid"],
        "loss_weights": [1.0],
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
    }
    for attribute, value in {**usual, **LOSSES[name]}.items():
        monkeypatch.setattr(one_trainer, attribute, value)
    one_trainer.model.load_state_dict(one_trainer.ref_model.state_dict())
    shifted(one_trainer.model)
    batch = batch_of(one_trainer)
    term, _ = term_by_hand(one_trainer, batch, reference_by_hand(one_trainer, batch), gamma=0.3)
    assert_equal(one_trainer, batch, term)


@pytest.mark.parametrize("way", WAYS)
def test_with_zero_gamma_the_loss_is_trls_bit_for_bit_and_flips_are_counted(way, make_trainer, make_model, shifted):
    trainer = in_the_way(way, make_trainer, make_model, gamma=0.0)
    shifted(trainer.model, 0.5 if way == "prompt tuning" else 0.05)
    batch = batch_of(trainer)
    ours, theirs = (kind.compute_loss(trainer, trainer.model, batch) for kind in (GuardedDPOTrainer, DPOTrainer))
    assert torch.equal(ours, theirs)
    for mine, other in zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True):
        assert torch.equal(mine, other)
    assert max(trainer._metrics["train"]["flip/rate"]) > 0
    assert set(trainer._metrics["train"]["flip/constraint_loss"]) == {0.0}


def test_precomputed_references_give_the_same(make_trainer, shifted):
    trainer = make_trainer(gamma=0.3, precompute_ref_log_probs=True)
    batch = batch_of(trainer)
    with torch.no_grad():
        ref = logps_by_hand(trainer.model, batch)
    shifted(trainer.model)
    assert_equal(trainer, batch, term_by_hand(trainer, batch, ref, gamma=0.3)[0])


@pytest.mark.parametrize("precompute", [False, True])
def test_under_bfloat16_it_is_the_same_up_to_its_rounding(precompute, make_trainer, shifted):
    trainer = make_trainer(gamma=0.3, bf16=True, precompute_ref_log_probs=precompute)
    batch = batch_of(trainer)
    with torch.no_grad(), trainer.accelerator.autocast():
        ref = logps_by_hand(trainer.model, batch)
    shifted(trainer.model)
    with trainer.accelerator.autocast():
        assert_equal(trainer, batch, term_by_hand(trainer, batch, ref, gamma=0.3)[0], rel=4e-3)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("precompute", [False, True])
def test_nothing_flips_before_the_first_step(precompute, bf16, make_trainer):
    """Precomputed in other batches, references differ by rounding; the tolerance is above it."""
    trainer = make_trainer(precompute_ref_log_probs=precompute, precompute_ref_batch_size=1, bf16=bf16)
    trainer.model.train()
    for inputs in trainer.get_train_dataloader():
        with trainer.accelerator.autocast():
            trainer.compute_loss(trainer.model, trainer._prepare_inputs(inputs))
    assert trainer._metrics["train"]["flip/rate"] == [0.0] * 24


def test_the_reference_is_the_model_as_it_was_given(make_trainer, make_model, shifted):
    """TRL alone reloads the folder a model came from, and so forgets what was changed in memory."""
    model = make_model()
    shifted(model)
    trainer = make_trainer(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.ref_model.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_it_asks_the_models_no_more_often_than_trl(make_trainer, make_model):
    counts = {}
    for cls in (GuardedDPOTrainer, DPOTrainer):
        model, ref = make_model(), make_model()
        trainer = make_trainer(model, ref_model=ref, cls=cls, max_steps=2)
        calls = []
        for name, part in (("policy", model.model), ("reference", ref.model)):
            part.register_forward_hook(lambda *_, name=name, calls=calls: calls.append(name))
        trainer.train()
        counts[cls] = {name: calls.count(name) for name in ("policy", "reference")}
    assert counts[GuardedDPOTrainer] == counts[DPOTrainer] == {"policy": 2, "reference": 2}


def test_detecting_alone_trains_to_trls_weights(make_trainer, make_model):
    weights = [
        make_trainer(ref_model=make_model(), cls=cls, max_steps=3, gamma=0.0) for cls in (GuardedDPOTrainer, DPOTrainer)
    ]
    for trainer in weights:
        trainer.train()
    left, right = (trainer.model.state_dict() for trainer in weights)
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_accumulated_batches_train_like_one_large_one(make_trainer):
    """The term is scaled for accumulation as TRL's own loss is."""
    trainers = [
        make_trainer(gamma=0.5, max_steps=3, per_device_train_batch_size=size, gradient_accumulation_steps=6 // size)
        for size in (6, 2)
    ]
    for trainer in trainers:
        trainer.train()
    left, right = (trainer.model.state_dict() for trainer in trainers)
    assert max((value - right[name]).abs().max() for name, value in left.items()) < 2e-6
    logs = [trainer.state.log_history[-2] for trainer in trainers]
    for name in ("flip/rate", "flip/margin", "flip/constraint_loss"):
        assert logs[0][name] == pytest.approx(logs[1][name], abs=1e-5)


def test_metrics_are_logged_in_training_and_evaluation(make_trainer, rows):
    trainer = make_trainer(gamma=0.5, max_steps=4, eval_strategy="steps", eval_steps=4, eval_rows=rows[:7])
    trainer.train()
    (evaluation,) = (entry for entry in trainer.state.log_history if "eval_loss" in entry)
    (last,) = (entry for entry in trainer.state.log_history if entry.get("step") == 4 and "loss" in entry)
    names = ("flip/rate", "flip/margin", "flip/constraint_loss", "flip/gamma")
    assert all(name in last and f"eval_{name}" in evaluation for name in names)
    assert last["flip/gamma"] == evaluation["eval_flip/gamma"] == 0.5
    assert evaluation["eval_flip/rate"] * 7 == pytest.approx(round(evaluation["eval_flip/rate"] * 7))


def test_the_guard_lowers_the_flip_rate(make_trainer):
    rates = {}
    for gamma in (0.0, 0.5):
        trainer = make_trainer(gamma=gamma, max_steps=12)
        trainer.train()
        rates[gamma] = trainer.evaluate(trainer.train_dataset)["eval_flip/rate"]
    assert rates[0.5] < rates[0.0]


def test_a_streamed_data_set_is_guarded_too(tmp_path, make_model, tokenizer, rows, arguments):
    trainer = GuardedDPOTrainer(
        make_model(),
        args=GuardedDPOConfig(str(tmp_path), max_steps=2, **arguments),
        train_dataset=Dataset.from_list(rows).to_iterable_dataset(),
        processing_class=tokenizer,
    )
    trainer.train()
    assert "flip/rate" in trainer.state.log_history[0]


def test_a_reference_of_another_precision_flips_by_more_than_rounding_only(make_trainer, make_model):
    trainer = make_trainer(ref_model=copy.deepcopy(make_model()).to(torch.bfloat16))
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch_of(trainer))
    assert set(trainer._metrics["train"]["flip/rate"]) == {0.0}


def test_trls_defaults_are_guarded_too(tmp_path, make_model, tokenizer, rows):
    """bf16 and gradient checkpointing; everything given by position."""
    config = GuardedDPOConfig(str(tmp_path), use_cpu=True, max_steps=2, logging_steps=1, disable_tqdm=True)
    assert config.bf16
    assert config.gradient_checkpointing
    trainer = GuardedDPOTrainer(make_model(), None, config, None, Dataset.from_list(rows), None, tokenizer)
    trainer.train()
    assert trainer.state.log_history[0]["flip/rate"] == 0


@pytest.mark.filterwarnings("ignore:`return_outputs=True`:FutureWarning")
def test_a_function_for_metrics_still_gets_its_logits(tmp_path, make_model, tokenizer, rows, arguments):
    shapes = []
    trainer = GuardedDPOTrainer(
        make_model(),
        args=GuardedDPOConfig(str(tmp_path), **arguments),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:6]),
        processing_class=tokenizer,
        compute_metrics=lambda prediction: shapes.append(prediction.predictions.shape) or {},
    )
    assert "eval_flip/rate" in trainer.evaluate()
    assert shapes[0][0] == 12


def test_a_misspelt_argument_is_named(make_model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'tokenizer'"):
        GuardedDPOTrainer(make_model(), args=GuardedDPOConfig("run", use_cpu=True, bf16=False), tokenizer=None)
