"""Run by torchrun on two processes: Eq. 11 on a model whose weights FSDP2 shares out, against one whole model."""

import sys

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

from flipguard.objective.divergences import cross_entropy
from flipguard.processes import end
from flipguard.train.batches import PairCollator, ReferencedPair
from flipguard.train.data import TokenRow
from flipguard.train.guarded_loss import guarded_loss
from flipguard.train.recipe import ConstraintSpec, DataSpec, ModelSpec, Recipe
from flipguard.train.reference import with_reference
from flipguard.train.scoring import scorer_for

PAIRS = 4


def batch(pairs, ref):
    rows = [ReferencedPair(row, *sums) for row, sums in zip(pairs, ref, strict=True)]
    return PairCollator(0)(rows)


def token_rows():
    generator = torch.Generator().manual_seed(0)

    def some(count):
        return torch.randint(5, 40, (count,), generator=generator).tolist()

    return [TokenRow(f"row {row}", some(4), (some(3 + row), some(6 - row))) for row in range(PAIRS)]


def loss_of(model, scorer, objective, inputs):
    token_logps = scorer.token_logps(scorer.states(model, inputs), inputs)
    return objective(token_logps, inputs, cross_entropy(token_logps.chunk(2)[0]))


def main(folder):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    recipe = Recipe("dpo", ModelSpec("m"), DataSpec("d"), constraint=ConstraintSpec(gamma=0.5))
    objective = guarded_loss(recipe, place="here", precision=torch.float64)

    single = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    scorer, pairs = scorer_for(single), token_rows()
    known = with_reference(single, pairs, PairCollator(0), mixed=None)
    # Only pairs of the first process flip: the second must not leave out a step that the others wait for.
    worse = (1.0, 1.0, -1.0, -1.0)
    ref = [(row.ref_chosen + more, row.ref_rejected) for row, more in zip(known, worse, strict=True)]
    expected, metrics = loss_of(single, scorer, objective, batch(pairs, ref))
    assert metrics["flip/rate"].tolist() == [1.0, 1.0, 0.0, 0.0]
    expected.backward()

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    scorer = scorer_for(model)
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    half = slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2)
    for _ in range(2):  # a second step finds the weights shared out again
        model.zero_grad()
        loss, _ = loss_of(model, scorer, objective, batch(pairs[half], ref[half]))
        loss.backward()
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    torch.testing.assert_close(mean / 2, expected.detach())
    for (name, ours), theirs in zip(model.named_parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, msg=lambda told, name=name: f"{name}: {told}")


if __name__ == "__main__":
    main(sys.argv[1])
    end(0)
