"""Eq. 11 on a batch: what is added, to whom, and what is told of it."""

import math
from pathlib import Path

import pytest
import torch

from flipguard.errors import RecipeError
from flipguard.train.guarded_loss import guarded_loss
from flipguard.train.recipe import ConstraintSpec, DataSpec, ModelSpec, Recipe

PLACE = "r.yaml"
LENGTHS = torch.tensor([2, 3, 1, 2])


def recipe(algorithm="dpo", loss=None, **constraint):
    return Recipe(
        algorithm=algorithm,
        model=ModelSpec(path="m"),
        data=DataSpec(train="d.jsonl"),
        loss=loss or {},
        constraint=ConstraintSpec(**constraint),
        trainer={"output_dir": str(Path("out"))},
    )


def build(**options):
    return guarded_loss(recipe(**options), place=PLACE, precision=torch.float64)


@pytest.fixture
def token_logps():
    torch.manual_seed(0)
    values = -torch.rand(4, 3, dtype=torch.float64)
    return values.masked_fill(torch.arange(3) >= LENGTHS[:, None], 0.0).requires_grad_()


def batch(ref):
    return {"lengths": LENGTHS, "ref_logps": ref}


def test_at_the_start_nothing_flips_and_the_loss_is_log_two(token_logps):
    ref = token_logps.detach().sum(-1)
    loss, metrics = build()(token_logps, batch(ref), -token_logps[:2])
    assert loss.item() == pytest.approx(math.log(2))
    for name in ("flip/rate", "flip/margin", "flip/constraint_loss", "kl/ref", "rewards/margins"):
        assert metrics[name].abs().max() == 0, name


def test_the_guard_is_gamma_times_the_cross_entropy_of_the_pairs_that_flipped(token_logps):
    sums = token_logps.detach().sum(-1)
    ref = sums + torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)  # only the first pair got worse
    plain, _ = build(gate="off")(token_logps, batch(ref), -token_logps[:2])
    for reduction, divisor in (("sum", 1), ("mean", 2)):
        guarded, metrics = build(gamma=0.5, reduction=reduction)(token_logps, batch(ref), -token_logps[:2])
        assert (guarded - plain).item() == pytest.approx(0.5 * -sums[0].item() / divisor / 2)
        assert metrics["flip/rate"].tolist() == [1.0, 0.0]


def test_epsilon_forgives_small_losses(token_logps):
    ref = token_logps.detach().sum(-1) + 1.0
    assert build(epsilon=0.9)(token_logps, batch(ref), -token_logps[:2])[1]["flip/rate"].tolist() == [1.0, 1.0]
    assert build(epsilon=1.1)(token_logps, batch(ref), -token_logps[:2])[1]["flip/rate"].tolist() == [0.0, 0.0]


def test_distillation_is_the_guard_with_the_gate_always_open(token_logps):
    ref = token_logps.detach().sum(-1)
    plain, _ = build(gate="off")(token_logps, batch(ref), -token_logps[:2])
    distilled, _ = build(gate="always", gamma=0.5)(token_logps, batch(ref), -token_logps[:2])
    assert (distilled - plain).item() == pytest.approx(0.5 * -token_logps[:2].detach().sum(-1).mean().item())


def test_the_soft_gate_weighs_every_pair_and_flips_more(token_logps):
    ref = token_logps.detach().sum(-1) + torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    plain, _ = build(gate="off")(token_logps, batch(ref), -token_logps[:2])
    soft, _ = build(gate="soft", weights=(0.25, 1.0), gamma=1.0)(token_logps, batch(ref), -token_logps[:2])
    worse, better = -token_logps[:2].detach().sum(-1)
    assert (soft - plain).item() == pytest.approx((1.25 * worse + 0.25 * better).item() / 2)


def test_a_differing_loss_section_reaches_the_loss(token_logps):
    ref = token_logps.detach().sum(-1) - 1.0
    gentle, _ = build(algorithm="dpop", loss={"dpop_lambda": 0.0}, gate="off")(
        token_logps, batch(ref), -token_logps[:2]
    )
    assert gentle.item() == pytest.approx(math.log(2))


def test_unknown_loss_keys_and_bad_betas_are_refused():
    with pytest.raises(RecipeError, match=r"loss: unknown key 'betta'. Did you mean 'beta'"):
        build(loss={"betta": 1.0})
    with pytest.raises(RecipeError, match=r"loss.beta: 0.0 is not possible"):
        build(loss={"beta": 0.0})


# -- tokens, measured flips, gamma in motion --------------------------------------------------------------------------


def test_the_token_gate_pulls_only_the_tokens_that_fell(token_logps):
    sums = token_logps.detach().sum(-1)
    by_token = token_logps.detach()[:2] + torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    told = {**batch(sums), "ref_token_logps": by_token}
    plain, _ = build(gate="off")(token_logps, told, -token_logps[:2])
    guarded, metrics = build(gate="token", gamma=1.0)(token_logps, told, -token_logps[:2])
    (pull,) = torch.autograd.grad(guarded - plain, token_logps)
    assert pull.nonzero().tolist() == [[0, 0]]
    assert metrics["flip/rate"].tolist() == [0.0, 0.0], "what a flip is does not depend on the gate"
    assert metrics["flip/token_rate"].tolist() == [0.5, 0.0]


def test_where_a_rejected_answer_is_longer_the_reference_of_the_chosen_may_be_narrower(token_logps):
    told = {**batch(token_logps.detach().sum(-1)), "ref_token_logps": token_logps.detach()[:2] + 0.5}
    wide = torch.nn.functional.pad(token_logps, (0, 2))
    expected, _ = build(gate="token")(token_logps, told, -token_logps[:2])
    assert torch.equal(build(gate="token")(wide, told, -wide[:2])[0], expected)


def test_a_measured_flip_multiplies_gamma_where_the_gate_is_open(token_logps):
    sums = token_logps.detach().sum(-1)
    ref = sums + torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)  # only the first pair got worse
    plain, _ = build(gate="off")(token_logps, batch(ref), -token_logps[:2])
    once, _ = build(gamma=0.5)(token_logps, batch(ref), -token_logps[:2])
    weighed = {**batch(ref), "guard_weights": torch.tensor([3.0, 5.0])}
    thrice, metrics = build(gamma=0.5)(token_logps, weighed, -token_logps[:2])
    assert (thrice - plain).item() == pytest.approx(3 * (once - plain).item())
    assert metrics["flip/rate"].tolist() == [1.0, 0.0]


def test_the_gamma_of_the_moment_is_the_one_that_counts(token_logps):
    ref = token_logps.detach().sum(-1) + 1.0
    loss = build(gamma=0.5)
    before, _ = loss(token_logps, batch(ref), -token_logps[:2])
    loss.guard.strength.gamma = 1.0
    after, metrics = loss(token_logps, batch(ref), -token_logps[:2])
    plain, _ = build(gate="off")(token_logps, batch(ref), -token_logps[:2])
    assert (after - plain).item() == pytest.approx(2 * (before - plain).item())
    assert metrics["flip/gamma"].tolist() == [1.0, 1.0]


def test_a_flag_is_true_or_false_and_a_number_a_number():
    for loss in ({"reference_free": 1.0}, {"beta": True}):
        with pytest.raises(RecipeError, match=r"is not possible: it must be (true or false|a number)"):
            build(loss=loss)
    assert build(loss={"reference_free": True})
