"""Scores of completion tokens: the lean way equals the plain one, and never builds [B, T, V]."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective import logprobs
from flipguard.objective.divergences import forward_kl
from flipguard.objective.logprobs import (
    predicting_positions,
    sequence_logps,
    token_divergences,
    token_logps,
    token_logps_from_logits,
)

B, T, H, V = 3, 9, 5, 29  # rows, positions, width, vocabulary; no other size is 29
S, C = 4, 6  # completions, longest of them
few = settings(deadline=None, max_examples=15)


def batch(seed=0, dtype=torch.float64):
    """Hidden states, a head, and completions whose tokens are predicted anywhere; the last one is empty."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, H, generator=rng, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=rng, dtype=torch.float64).to(dtype).requires_grad_()
    places = torch.randint(B * T, (S, C), generator=rng)
    lengths = torch.randint(1, C + 1, (S, 1), generator=rng)
    lengths[-1] = 0
    places[torch.arange(C) >= lengths] = -1
    return hidden, weight, places, torch.randint(V, (S, C), generator=rng)


def softcapped(weight):
    return lambda rows: 3.0 * torch.tanh(rows @ weight.T / 3.0)


class CountingHead:
    """A head that remembers how many rows it was given each time."""

    def __init__(self, weight):
        self.weight = weight
        self.rows = []

    def __call__(self, rows):
        self.rows.append(len(rows))
        return rows @ self.weight.T


@few
@given(seed=st.integers(0, 2**31))
def test_a_token_is_scored_by_the_logits_of_the_place_that_predicts_it(seed):
    """Brute force, one token at a time."""
    hidden, weight, places, targets = batch(seed)
    logits = (hidden @ weight.T).flatten(0, 1)
    scores = token_logps_from_logits(hidden @ weight.T, places, targets)
    assert scores.shape == (S, C)
    for s, j in itertools.product(range(S), range(C)):
        place, target = places[s, j], targets[s, j]
        expected = math.log(logits[place].softmax(-1)[target].item()) if place >= 0 else 0.0
        assert scores[s, j].item() == pytest.approx(expected, abs=1e-12)


def test_a_token_is_predicted_at_the_one_before_it():
    """Positions 0 to 2 are a prompt, 3 and 4 its first completion, 5 to 7 its second one."""
    assert predicting_positions(3, 3, 2) == [2, 3]
    assert predicting_positions(3, 5, 3) == [2, 5, 6]
    assert predicting_positions(3, 5, 1) == [2]
    assert predicting_positions(3, 5, 0) == []


@few
@given(seed=st.integers(0, 2**31), tile_tokens=st.integers(1, 40))
def test_tiles_give_the_numbers_and_gradients_of_full_logits(seed, tile_tokens):
    hidden, weight, places, targets = batch(seed)
    upstream = torch.randn(S, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    tiled = token_logps(hidden, softcapped(weight), places, targets, tile_tokens=tile_tokens)
    plain = token_logps_from_logits(softcapped(weight)(hidden), places, targets)
    torch.testing.assert_close(tiled, plain, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(tiled, (hidden, weight), upstream)
    theirs = torch.autograd.grad(plain, (hidden, weight), upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_full_logits_agree_with_a_plain_log_softmax_and_gather():
    """An oracle that shares no code with ours: torch's own cross entropy with ignored positions."""
    hidden, weight, places, targets = batch()
    states = hidden.flatten(0, 1)[places.clamp(min=0)]
    labels = targets.masked_fill(places < 0, -100)
    oracle = -torch.nn.functional.cross_entropy((states @ weight.T).transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(token_logps_from_logits(hidden @ weight.T, places, targets), oracle, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile_tokens", [1, 4, 7, 1024])
def test_the_head_never_sees_more_than_a_tile_nor_anything_but_the_completion(tile_tokens):
    hidden, weight, places, targets = batch()
    head = CountingHead(weight)
    token_logps(hidden, head, places, targets, tile_tokens=tile_tokens).sum().backward()
    assert max(head.rows) <= tile_tokens
    assert sum(head.rows) == 2 * int((places >= 0).sum())  # once forward, once more in backward


def test_nothing_is_computed_twice_nor_checkpointed_without_gradients(monkeypatch):
    monkeypatch.setattr(logprobs, "checkpoint", None)
    hidden, weight, places, targets = batch()
    head = CountingHead(weight)
    with torch.no_grad():
        scores = token_logps(hidden, head, places, targets, tile_tokens=4)
    assert sum(head.rows) == int((places >= 0).sum())
    assert not scores.requires_grad


def test_nothing_of_the_size_of_the_vocabulary_is_kept_for_the_backward_pass():
    hidden, weight, places, targets = batch()
    kept = []

    def remember(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        token_logps(hidden, lambda rows: rows @ weight.T, places, targets, tile_tokens=4)
    assert kept
    assert all(V not in shape for shape in kept)


def test_a_batch_without_completion_tokens_scores_zero_and_keeps_its_graph():
    """Every rank must run the same collectives, so the gradient is zero, not absent."""
    hidden, weight, places, targets = batch()
    scores = token_logps(hidden, lambda rows: rows @ weight.T, torch.full_like(places, -1), targets)
    assert torch.equal(scores, torch.zeros(S, C, dtype=torch.float64))
    scores.sum().backward()
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("path", ["tiles", "logits"])
def test_nan_outside_the_completion_reaches_neither_scores_nor_gradients(path):
    """Models may return NaN on rows whose attention is fully masked."""
    hidden, weight, places, targets = batch()
    used = torch.zeros(B * T, dtype=torch.bool)
    used[places[places >= 0]] = True
    used = used.view(B, T)
    broken = hidden.detach().masked_fill(~used.unsqueeze(-1), float("nan")).requires_grad_()
    if path == "tiles":
        scores = token_logps(broken, lambda rows: rows @ weight.T, places, targets)
    else:
        logits = (broken.detach() @ weight.detach().T).requires_grad_()
        scores, broken = token_logps_from_logits(logits, places, targets), logits
    scores.sum().backward()
    assert scores.isfinite().all()
    assert broken.grad.isfinite().all()
    assert torch.equal(broken.grad[~used], torch.zeros_like(broken.grad[~used]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_scores_are_at_least_float32_whatever_the_model_computes_in(dtype):
    hidden, weight, places, targets = batch(dtype=dtype)
    scores = token_logps(hidden, lambda rows: rows @ weight.T, places, targets)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    scores.sum().backward()
    assert hidden.grad.dtype == dtype
    exact = token_logps_from_logits((hidden @ weight.T).double(), places, targets)
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=1e-5)


def test_a_head_with_a_low_rank_adapter_trains_its_adapter_only():
    hidden, weight, places, targets = batch()
    frozen = weight.detach()
    rng = torch.Generator().manual_seed(0)
    down = torch.randn(2, H, dtype=torch.float64, generator=rng).requires_grad_()
    up = torch.randn(V, 2, dtype=torch.float64, generator=rng).requires_grad_()
    adapter = (down, up)

    def head(rows):
        return rows @ frozen.T + rows @ down.T @ up.T

    tiled = token_logps(hidden.detach(), head, places, targets, tile_tokens=4).sum()
    plain = token_logps_from_logits(head(hidden.detach()), places, targets).sum()
    torch.testing.assert_close(torch.autograd.grad(tiled, adapter), torch.autograd.grad(plain, adapter))


def test_a_token_the_model_excludes_scores_minus_infinity_and_hurts_no_other():
    logits = torch.zeros(1, 3, 4, dtype=torch.float64)
    logits[..., 3] = -math.inf
    scores = token_logps_from_logits(logits.requires_grad_(), torch.tensor([[0, 1]]), torch.tensor([[3, 1]]))
    assert scores.tolist() == [[-math.inf, pytest.approx(-math.log(3))]]
    scores[0, 1].backward()
    assert logits.grad.isfinite().all()


def test_the_probabilities_of_all_sequences_sum_to_one():
    """What makes log pi(y|x) a log-probability: enumerate every completion of two tokens."""
    rng = torch.Generator().manual_seed(0)
    table = torch.randn(V, V, generator=rng, dtype=torch.float64)  # a bigram model: the next token depends on this one
    completions = torch.cartesian_prod(torch.tensor([4]), torch.arange(V), torch.arange(V))
    places = torch.arange(len(completions) * 3).view(-1, 3)[:, :2]
    total = sequence_logps(token_logps_from_logits(table[completions], places, completions[:, 1:])).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-12)


@few
@given(seed=st.integers(0, 2**31), tile_tokens=st.integers(1, 40))
def test_tiled_divergences_equal_those_of_two_full_distributions(seed, tile_tokens):
    hidden, weight, places, _ = batch(seed)
    ref_hidden, ref_weight, *_ = batch(seed + 1)
    heads = CountingHead(weight), CountingHead(ref_weight)
    tiled = token_divergences(hidden, heads[0], ref_hidden, heads[1], places, forward_kl, tile_tokens=tile_tokens)
    ref_logprobs = (ref_hidden @ ref_weight.T).log_softmax(-1)
    everywhere = forward_kl(ref_logprobs, (hidden @ weight.T).log_softmax(-1)).flatten()
    plain = everywhere[places.clamp(min=0)].masked_fill(places < 0, 0.0)
    torch.testing.assert_close(tiled, plain, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(tiled.sum(), (hidden, weight))
    torch.testing.assert_close(ours, torch.autograd.grad(plain.sum(), (hidden, weight)), rtol=0, atol=1e-10)
    assert all(rows <= tile_tokens for head in heads for rows in head.rows)


def test_divergences_send_nothing_back_into_the_reference():
    hidden, weight, places, _ = batch()
    ref_hidden, ref_weight, *_ = batch(1)
    values = token_divergences(
        hidden, lambda rows: rows @ weight.T, ref_hidden, lambda rows: rows @ ref_weight.T, places, forward_kl
    )
    values.sum().backward()
    assert ref_hidden.grad is None
    assert ref_weight.grad is None
    assert hidden.grad.abs().sum() > 0
