"""Scores of completion tokens: the lean way equals the plain one, and never builds [B, T, V]."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective import logprobs
from flipguard.objective.divergences import forward_kl
from flipguard.objective.logprobs import (
    completion_lengths,
    sequence_logps,
    token_divergences,
    token_logps,
    token_logps_from_logits,
)

B, T, H, V = 3, 9, 5, 11
few = settings(deadline=None, max_examples=15)


def batch(seed=0, dtype=torch.float64):
    """Hidden states, a head, tokens and a mask with gaps; position 0 is masked in at random too."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, H, generator=rng, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=rng, dtype=torch.float64).to(dtype).requires_grad_()
    input_ids = torch.randint(V, (B, T), generator=rng)
    mask = torch.rand(B, T, generator=rng) < 0.6
    return hidden, weight, input_ids, mask


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
def test_a_token_is_scored_by_the_logits_of_the_position_before_it(seed):
    """Brute force, one token at a time."""
    hidden, weight, input_ids, mask = batch(seed)
    logits = hidden @ weight.T
    scores = token_logps_from_logits(logits, input_ids, mask)
    assert scores.shape == (B, T - 1)
    for b in range(B):
        for t in range(1, T):
            expected = math.log(logits[b, t - 1].softmax(-1)[input_ids[b, t]].item()) if mask[b, t] else 0.0
            assert scores[b, t - 1].item() == pytest.approx(expected, abs=1e-12)


@few
@given(seed=st.integers(0, 2**31), tile_tokens=st.integers(1, 40))
def test_tiles_give_the_numbers_and_gradients_of_full_logits(seed, tile_tokens):
    hidden, weight, input_ids, mask = batch(seed)
    upstream = torch.randn(B, T - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    tiled = token_logps(hidden, softcapped(weight), input_ids, mask, tile_tokens=tile_tokens)
    plain = token_logps_from_logits(softcapped(weight)(hidden), input_ids, mask)
    torch.testing.assert_close(tiled, plain, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(tiled, (hidden, weight), upstream)
    theirs = torch.autograd.grad(plain, (hidden, weight), upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_full_logits_agree_with_a_plain_log_softmax_and_gather():
    """An oracle that shares no code with ours: torch's own cross entropy with ignored positions."""
    hidden, weight, input_ids, mask = batch()
    logits = hidden @ weight.T
    labels = input_ids.masked_fill(~mask, -100)[:, 1:]
    oracle = -torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(token_logps_from_logits(logits, input_ids, mask), oracle, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile_tokens", [1, 4, 7, 1024])
def test_the_head_never_sees_more_than_a_tile_nor_anything_but_the_completion(tile_tokens):
    hidden, weight, input_ids, mask = batch()
    head = CountingHead(weight)
    token_logps(hidden, head, input_ids, mask, tile_tokens=tile_tokens).sum().backward()
    assert max(head.rows) <= tile_tokens
    assert sum(head.rows) == 2 * int(mask[:, 1:].sum())  # once forward, once more in backward


def test_nothing_is_computed_twice_nor_checkpointed_without_gradients(monkeypatch):
    monkeypatch.setattr(logprobs, "checkpoint", None)
    hidden, weight, input_ids, mask = batch()
    head = CountingHead(weight)
    with torch.no_grad():
        scores = token_logps(hidden, head, input_ids, mask, tile_tokens=4)
    assert sum(head.rows) == int(mask[:, 1:].sum())
    assert not scores.requires_grad


def test_nothing_of_the_size_of_the_vocabulary_is_kept_for_the_backward_pass():
    hidden, weight, input_ids, _ = batch()
    kept = []

    def remember(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        token_logps(hidden, lambda rows: rows @ weight.T, input_ids, torch.ones(B, T, dtype=torch.bool), tile_tokens=4)
    assert kept
    assert all(V not in shape for shape in kept)


def test_a_batch_without_completion_tokens_scores_zero_and_keeps_its_graph():
    """Every rank must run the same collectives, so the gradient is zero, not absent."""
    hidden, weight, input_ids, mask = batch()
    scores = token_logps(hidden, lambda rows: rows @ weight.T, input_ids, torch.zeros_like(mask))
    assert torch.equal(scores, torch.zeros(B, T - 1, dtype=torch.float64))
    scores.sum().backward()
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("path", ["tiles", "logits"])
def test_nan_outside_the_completion_reaches_neither_scores_nor_gradients(path):
    """Models may return NaN on rows whose attention is fully masked."""
    hidden, weight, input_ids, mask = batch()
    used = torch.zeros_like(mask)
    used[:, :-1] = mask[:, 1:]
    broken = hidden.detach().masked_fill(~used.unsqueeze(-1), float("nan")).requires_grad_()
    if path == "tiles":
        scores = token_logps(broken, lambda rows: rows @ weight.T, input_ids, mask)
    else:
        logits = (broken.detach() @ weight.detach().T).requires_grad_()
        scores, broken = token_logps_from_logits(logits, input_ids, mask), logits
    scores.sum().backward()
    assert scores.isfinite().all()
    assert broken.grad.isfinite().all()
    assert torch.equal(broken.grad[~used], torch.zeros_like(broken.grad[~used]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_scores_are_at_least_float32_whatever_the_model_computes_in(dtype):
    hidden, weight, input_ids, mask = batch(dtype=dtype)
    scores = token_logps(hidden, lambda rows: rows @ weight.T, input_ids, mask)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    scores.sum().backward()
    assert hidden.grad.dtype == dtype
    exact = token_logps_from_logits((hidden @ weight.T).double(), input_ids, mask)
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=1e-5)


def test_integer_masks_mean_the_same_as_boolean_ones():
    hidden, weight, input_ids, mask = batch()
    logits = hidden @ weight.T
    whole = token_logps_from_logits(logits, input_ids, mask.long())
    assert torch.equal(whole, token_logps_from_logits(logits, input_ids, mask))
    assert torch.equal(completion_lengths(mask.long()), completion_lengths(mask))


def test_a_head_with_a_low_rank_adapter_trains_its_adapter_only():
    hidden, weight, input_ids, mask = batch()
    frozen = weight.detach()
    rng = torch.Generator().manual_seed(0)
    down = torch.randn(2, H, dtype=torch.float64, generator=rng).requires_grad_()
    up = torch.randn(V, 2, dtype=torch.float64, generator=rng).requires_grad_()
    adapter = (down, up)

    def head(rows):
        return rows @ frozen.T + rows @ down.T @ up.T

    tiled = token_logps(hidden.detach(), head, input_ids, mask, tile_tokens=4).sum()
    plain = token_logps_from_logits(head(hidden.detach()), input_ids, mask).sum()
    torch.testing.assert_close(torch.autograd.grad(tiled, adapter), torch.autograd.grad(plain, adapter))


def test_a_token_the_model_excludes_scores_minus_infinity_and_hurts_no_other():
    logits = torch.zeros(1, 3, 4, dtype=torch.float64)
    logits[..., 3] = -math.inf
    scores = token_logps_from_logits(logits.requires_grad_(), torch.tensor([[0, 3, 1]]), torch.ones(1, 3))
    assert scores.tolist() == [[-math.inf, pytest.approx(-math.log(3))]]
    scores[0, 1].backward()
    assert logits.grad.isfinite().all()


def test_the_probabilities_of_all_sequences_sum_to_one():
    """What makes log pi(y|x) a log-probability: enumerate every completion of two tokens."""
    rng = torch.Generator().manual_seed(0)
    table = torch.randn(V, V, generator=rng, dtype=torch.float64)  # a bigram model: the next token depends on this one
    completions = torch.cartesian_prod(torch.tensor([4]), torch.arange(V), torch.arange(V))
    mask = torch.tensor([[False, True, True]]).expand(len(completions), 3)
    total = sequence_logps(token_logps_from_logits(table[completions], completions, mask)).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-12)


def test_lengths_count_the_tokens_that_are_scored():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    assert completion_lengths(mask).tolist() == [2, 2, 0]


@few
@given(seed=st.integers(0, 2**31), tile_tokens=st.integers(1, 40))
def test_tiled_divergences_equal_those_of_two_full_distributions(seed, tile_tokens):
    hidden, weight, _, mask = batch(seed)
    ref_hidden, ref_weight, *_ = batch(seed + 1)
    heads = CountingHead(weight), CountingHead(ref_weight)
    tiled = token_divergences(hidden, heads[0], ref_hidden, heads[1], mask, forward_kl, tile_tokens=tile_tokens)
    ref_logprobs = (ref_hidden @ ref_weight.T).log_softmax(-1)
    plain = forward_kl(ref_logprobs, (hidden @ weight.T).log_softmax(-1))[:, :-1] * mask[:, 1:]
    torch.testing.assert_close(tiled, plain, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(tiled.sum(), (hidden, weight))
    torch.testing.assert_close(ours, torch.autograd.grad(plain.sum(), (hidden, weight)), rtol=0, atol=1e-10)
    assert all(rows <= tile_tokens for head in heads for rows in head.rows)


def test_divergences_send_nothing_back_into_the_reference():
    hidden, weight, _, mask = batch()
    ref_hidden, ref_weight, *_ = batch(1)
    mask[0] = True
    values = token_divergences(
        hidden, lambda rows: rows @ weight.T, ref_hidden, lambda rows: rows @ ref_weight.T, mask, forward_kl
    )
    values.sum().backward()
    assert ref_hidden.grad is None
    assert ref_weight.grad is None
    assert hidden.grad.abs().sum() > 0
