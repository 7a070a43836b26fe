"""Divergences over the whole vocabulary: tiles give the numbers and gradients of full tensors, and hold far less."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flipguard.objective.divergences import DIVERGENCES
from flipguard.objective.logprobs import token_divergences

R, T, H, V = 2, 129, 6, 1009  # rows, positions, width, vocabulary; only what spans the vocabulary has size 1009
TILE = 8
every_divergence = pytest.mark.parametrize("name", sorted(DIVERGENCES))


def batch(dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    hidden, ref_hidden = torch.randn(2, R, T, H, generator=rng, dtype=dtype).unbind(0)
    weight, ref_weight = torch.randn(2, V, H, generator=rng, dtype=dtype).unbind(0)
    places = torch.arange(R * T).view(R, T)[:, :-1].clone()
    places[1, 20:] = -1
    return hidden.requires_grad_(), weight.requires_grad_(), ref_hidden, ref_weight, places


def in_tiles(name, hidden, weight, ref_hidden, ref_weight, places):
    return token_divergences(
        hidden,
        lambda rows: rows @ weight.T,
        ref_hidden,
        lambda rows: rows @ ref_weight.T,
        places,
        DIVERGENCES[name],
        tile_tokens=TILE,
    )


def in_full(name, hidden, weight, ref_hidden, ref_weight, places):
    values = DIVERGENCES[name]((ref_hidden @ ref_weight.T).log_softmax(-1), (hidden @ weight.T).log_softmax(-1))
    return values[:, :-1].masked_fill(places < 0, 0.0)


class Watching(TorchDispatchMode):
    """The largest number of vocabulary rows alive at once in tensors made under it."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == V:
                self.count(tensor.untyped_storage(), tensor.numel() // V)
        return out

    def count(self, storage, rows):
        key = storage.data_ptr()
        if key in self.known:
            return
        self.known.add(key)
        self.alive += rows
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self.free, key, rows)

    def free(self, key, rows):
        self.known.discard(key)
        self.alive -= rows


def peak_rows(compute, name):
    inputs = batch()
    with Watching() as watching:
        compute(name, *inputs).sum().backward()
    return watching.peak


@every_divergence
def test_tiles_give_the_numbers_and_gradients_of_two_full_distributions(name):
    inputs = batch()
    lean, plain = in_tiles(name, *inputs), in_full(name, *inputs)
    torch.testing.assert_close(lean, plain)
    upstream = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=plain.dtype)
    ours = torch.autograd.grad((lean * upstream).sum(), inputs[:2], retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad((plain * upstream).sum(), inputs[:2]))


@every_divergence
def test_not_even_one_distribution_over_all_tokens_is_ever_alive(name):
    """A tile needs a dozen tensors of its own size while it is differentiated: 8 rows each, where the batch has 258."""
    assert peak_rows(in_full, name) >= 4 * R * T, "the watch sees what the plain way holds"
    assert peak_rows(in_tiles, name) < R * T


def test_what_is_alive_does_not_grow_with_the_batch():
    """Twice the tokens, the same tiles: nothing that spans the vocabulary is kept from the forward pass."""
    hidden, weight, ref_hidden, ref_weight, places = batch()
    peaks = []
    for repeats in (1, 2):
        with Watching() as watching:
            values = in_tiles("kl", hidden, weight, ref_hidden, ref_weight, places[:1].repeat(repeats, 1))
            values.sum().backward()
        peaks.append(watching.peak)
    assert peaks[0] == peaks[1]
