"""KTO's rows, batches and loss: mismatched completions, and a guard that watches the desirable ones only."""

from dataclasses import replace

import pytest
import torch

from flipguard.errors import DataError
from flipguard.train.batches import PairCollator, ReferencedPair
from flipguard.train.data import TokenRow
from flipguard.train.guarded_loss import guarded_loss
from flipguard.train.recipe import ConstraintSpec, DataSpec, ModelSpec, Recipe
from flipguard.train.unpaired import UnpairedCollator, mismatched, with_mismatched


def row(prompt, completion, label=True):
    return TokenRow("d.jsonl:1", prompt, (completion,), label)


def others(rows, context=None):
    return [paired.completions[1] for paired in with_mismatched(rows, context)]


def test_each_row_gets_the_completion_of_the_row_before_and_the_first_that_of_the_last():
    assert others([row([1], [5]), row([2], [6]), row([3], [7])]) == [[7], [5], [6]]


def test_rows_of_one_prompt_take_turns_so_that_good_and_bad_answers_are_both_drawn():
    rows = [row([prompt], [prompt, side], side == 0) for prompt in (1, 2, 3) for side in (0, 1)]
    assert others(rows) == [[3, 0], [3, 1], [1, 0], [1, 1], [2, 0], [2, 1]]


def test_no_row_gets_an_answer_to_its_own_prompt():
    rows = [row([1], [10]), row([1], [11]), row([2], [20]), row([3], [30]), row([1], [12])]
    for paired in with_mismatched(rows, None):
        assert paired.completions[1][0] // 10 != paired.prompt[0]


def test_a_mismatched_completion_is_cut_to_the_context():
    assert others([row([1, 1, 1], [5]), row([2], [6, 6, 6])], context=4) == [[6], [5]]


def test_a_single_prompt_leaves_nothing_to_mismatch():
    with pytest.raises(DataError, match=r"^d.jsonl:1: all rows have the same prompt"):
        with_mismatched([row([1], [5]), row([1], [6])], None)


def test_a_batch_holds_both_completions_apart_under_the_same_names():
    rows = with_mismatched([row([1], [5, 9]), row([2, 2], [6], label=False)], None)
    batch = UnpairedCollator(PairCollator(0))([ReferencedPair(item, -1.0 * n, -2.0) for n, item in enumerate(rows)])
    own, other = PairCollator(0), mismatched(batch)
    for side, part in ((0, batch), (1, other)):
        for name, tensor in own.pad([replace(item, completions=(item.completions[side],)) for item in rows]).items():
            assert torch.equal(part[name], tensor), name
    assert batch["ref_logps"].tolist() == [0.0, -1.0]
    assert other["ref_logps"].tolist() == [-2.0, -2.0]
    assert batch["desirable"].tolist() == [True, False]


# -- the loss ---------------------------------------------------------------------------------------------------------


def build(**constraint):
    recipe = Recipe(
        algorithm="kto",
        model=ModelSpec(path="m"),
        data=DataSpec(train="d.jsonl"),
        constraint=ConstraintSpec(**constraint),
        trainer={"output_dir": "out"},
    )
    return guarded_loss(recipe, place="r.yaml", precision=torch.float64)


@pytest.fixture
def logps():
    """Two desirable completions, then two others; all fell by a nat."""
    torch.manual_seed(0)
    return (-torch.rand(4, 3, dtype=torch.float64)).requires_grad_()


def batch(logps):
    return {
        "lengths": torch.tensor([3, 3, 3, 3]),
        "ref_logps": logps.detach().sum(-1) + 1.0,
        "desirable": torch.tensor([True, True, False, False]),
        "z_0": torch.zeros(1, dtype=torch.float64),
    }


@pytest.mark.parametrize("gate", ["flip", "always", "soft", "token"])
def test_whatever_the_gate_undesirable_completions_are_not_held_back(logps, gate):
    weights = {"weights": (0.5, 1.0)} if gate == "soft" else {}
    rows = {**batch(logps), "ref_token_logps": logps.detach() + 1 / 3}
    plain, _ = build(gate="off")(logps, rows, -logps)
    guarded, told = build(gate=gate, gamma=1.0, **weights)(logps, rows, -logps)
    (pull,) = torch.autograd.grad(guarded - plain, logps)
    assert (pull[:2] < 0).all()
    assert not pull[2:].any()
    assert told["flip/rate"].tolist() == [1.0, 1.0], "the rate is that of the rows that can flip"


def test_the_guard_is_gamma_times_the_cross_entropy_over_the_whole_batch(logps):
    plain, _ = build(gate="off")(logps, batch(logps), -logps)
    guarded, _ = build(gamma=0.5)(logps, batch(logps), -logps)
    assert (guarded - plain).item() == pytest.approx(0.5 * -logps[:2].sum().item() / 4)


def test_rewards_are_told_of_the_rows_they_speak_of(logps):
    _, told = build()(logps, batch(logps), -logps)
    assert told["rewards/chosen"].tolist() == pytest.approx([-0.1, -0.1])
    assert told["rewards/rejected"].shape == (2,)
    assert told["kl/z_0"].tolist() == [0.0] * 4
