"""Gamma while a run goes on: what moves it, what does not, and that a checkpoint carries it."""

from types import SimpleNamespace

import pytest
import torch

from flipguard.train.constraintspec import ConstraintSpec
from flipguard.train.strength import Strength

COUNTS, FILLS = torch.tensor([4]), torch.tensor([0])


def at(step, steps=10, callbacks=None):
    return SimpleNamespace(global_step=step, max_steps=steps, stateful_callbacks=callbacks or {})


def observed(strength, *batches):
    for flipped in batches:
        strength.observe(torch.tensor(flipped), counts=COUNTS)
    strength.on_step_end(None, at(1), None)
    return strength.gamma


def test_the_flip_rate_of_all_micro_batches_of_a_step_moves_gamma_once():
    strength = Strength(ConstraintSpec(gamma=0.5, target_flip_rate=0.25, adaptive_rate=0.1))
    assert observed(strength, [1.0, 1.0], [0.0, 0.0]) == pytest.approx(0.5 + 0.1 * 0.25)
    assert observed(strength, [0.0, 0.0, 0.0]) == pytest.approx(0.5)
    assert observed(strength) == pytest.approx(0.5), "nothing was seen, nothing moves"


def test_batches_that_only_fill_up_a_step_are_not_seen():
    strength = Strength(ConstraintSpec(gamma=0.5, target_flip_rate=0.0))
    strength.observe(torch.tensor([1.0]), counts=FILLS)
    strength.on_step_end(None, at(1), None)
    assert strength.gamma == 0.5


def test_without_a_target_flips_change_nothing():
    assert observed(Strength(ConstraintSpec(gamma=0.5)), [1.0, 1.0]) == 0.5


def test_a_checkpoint_carries_gamma_to_the_bit():
    spec = ConstraintSpec(gamma=0.1, target_flip_rate=0.3, adaptive_rate=0.07)
    strength = Strength(spec)
    observed(strength, [1.0, 0.0, 1.0])
    resumed = Strength(spec)
    resumed.on_train_begin(None, at(1, callbacks={"Strength": strength.state()}), None)
    assert resumed.gamma == strength.gamma != 0.1


def test_a_schedule_needs_no_memory():
    strength = Strength(ConstraintSpec(gamma=1.0, schedule="linear", warmup=0.5))
    seen = []
    for step in range(10):
        strength.on_step_begin(None, at(step), None)
        seen.append(strength.gamma)
    assert seen == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2])


def test_a_guard_that_is_off_has_no_strength():
    strength = Strength(ConstraintSpec(gamma=1.0, gate="off"))
    strength.on_step_begin(None, at(5), None)
    assert strength.gamma == 0.0
