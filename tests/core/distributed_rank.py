"""`python distributed_rank.py RANK WORLD STORE OUT`: one of several processes, each with a part of a batch.

Run by test_distributed.py. The last one writes {what: how far it is from what a single process finds}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mt_core.build import Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.decoders.aspp import PooledBatchNorm
from mt_core.distributed import everywhere, is_dealt_out, processes, synchronise_batch_norms, together
from mt_core.losses import balanced_bce
from mt_core.model import Objective
from mt_core.tasks import Normals, Saliency


def part(x: Tensor, rank: int, world: int) -> Tensor:
    return x.chunk(world)[rank]


def far(one: Tensor, other: Tensor) -> float:
    return float((one.detach().double() - other.detach().double()).abs().max())


def whole(x: Tensor) -> Tensor:
    """The parts of all processes, one after the other."""
    found = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(found, x.detach().contiguous())
    return torch.cat(found)


def summed(x: Tensor) -> Tensor:
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def batch_norm(make: Callable[[], nn.Module], shape: tuple[int, ...], rank: int, world: int) -> dict[str, float]:
    """Two steps of a batch norm, and the gradients of the second; then in evaluation mode."""
    one, several = make().double(), make().double()
    synchronise_batch_norms(several)
    torch.manual_seed(1)
    for _ in range(2):
        x = (3 + 2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
        weight = torch.randn(shape, dtype=torch.float64)
        mine = part(x, rank, world).detach().requires_grad_()
        for module in (one, several):
            module.zero_grad()
        expected = one(x)
        (expected * weight).sum().backward()
        with together():
            found = several(mine)
            (found * part(weight, rank, world)).sum().backward()
    assert x.grad is not None
    assert mine.grad is not None
    answer = {"output": far(whole(found), expected), "input's gradient": far(whole(mine.grad), x.grad)}
    for name, parameter in one.named_parameters():
        answer[f"gradient of {name}"] = far(summed(several.get_parameter(name).grad), parameter.grad)  # type: ignore[arg-type]
    for name, buffer in one.named_buffers():
        answer[name] = far(several.get_buffer(name), buffer)
    one.eval(), several.eval()
    with together():
        answer["evaluation"] = far(several(x), one(x))
    one.train(), several.train()
    answer["alone"] = far(several(x), one(x))
    return answer


def norms(rank: int, world: int) -> dict[str, dict[str, float]]:
    pooled = 2, 5, 1, 1  # one picture for each of two processes
    return {
        "batch norm": batch_norm(lambda: nn.BatchNorm2d(5, momentum=0.3), (4, 5, 3, 2), rank, world),
        "without affine": batch_norm(lambda: nn.BatchNorm2d(5, affine=False), (4, 5, 3, 2), rank, world),
        "cumulative": batch_norm(lambda: nn.BatchNorm2d(5, momentum=None), (4, 5, 3, 2), rank, world),
        "without statistics": batch_norm(
            lambda: nn.BatchNorm2d(5, track_running_stats=False), (4, 5, 3, 2), rank, world
        ),
        "of vectors": batch_norm(lambda: nn.BatchNorm1d(5), (6, 5), rank, world),
        "pooled": batch_norm(lambda: PooledBatchNorm(5), pooled, rank, world),
    }


def loss(rank: int, world: int) -> dict[str, float]:
    """The class-balanced loss of a batch whose halves are annotated and balanced differently."""
    torch.manual_seed(2)
    logits = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    target = (torch.rand(4, 1, 8, 8) > 0.7).double()
    target[:2] = (torch.rand(2, 1, 8, 8) > 0.1).double()
    target[2:][torch.rand(2, 1, 8, 8) > 0.4] = 255
    mine, labels = part(logits, rank, world), part(target, rank, world)
    valid = (labels != 255).double().sum()
    with together():
        share = valid / everywhere(valid)
        found = summed(share * balanced_bce(mine, labels))
    return {"loss": far(found, balanced_bce(logits, target))}


def objective(rank: int, world: int) -> dict[str, float]:
    """All losses and the regulariser of a model, of which one half has no normals at all."""
    tasks = Normals("normals", 3), Saliency("saliency", 1)
    spec = ModelSpec(
        Entry("swin_nano"), Entry("tora"), Entry("segformer"), tuple(t.to_json() for t in tasks), (32, 32)
    )  # fmt: skip
    model = build(spec).model.double()
    torch.manual_seed(3)
    labels = {
        "normals": nn.functional.normalize(torch.randn(4, 3, 32, 32, dtype=torch.float64), dim=1),
        "saliency": (torch.rand(4, 1, 32, 32) > 0.8).double(),
    }
    labels["normals"][:2] = 0
    images, present = torch.rand(4, 3, 32, 32, dtype=torch.float64), torch.ones(4, dtype=torch.bool)
    aim = Objective(model.eval(), {"normals": 3.0})

    def batch(cut: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            ["a"] * len(cut(images)), cut(images), {n: cut(x) for n, x in labels.items()},
            {name: cut(present) for name in labels},
        )  # fmt: skip

    expected, each = aim(batch(lambda x: x))
    with together():
        found, parts = aim(batch(lambda x: part(x, rank, world)))
    assert parts.keys() == each.keys() == {"normals", "saliency", "penalty"}
    return {"total": far(summed(found), expected)} | {name: far(summed(parts[name]), x) for name, x in each.items()}


def words(rank: int, world: int) -> dict[str, float]:
    """What `together` means, and that it ends."""
    mine = torch.tensor([1.0, rank])
    assert (is_dealt_out(), processes(), everywhere(mine) is mine) == (False, 1, True)
    with together():
        assert (is_dealt_out(), processes()) == (True, world)
        total = everywhere(mine.requires_grad_())
        assert not total.requires_grad
        assert total.tolist() == [world, sum(range(world))]
        assert mine.tolist() == [1.0, rank]
        with together():
            pass
        assert is_dealt_out()
    assert not is_dealt_out()
    return {"words": 0.0}


def main(rank: int, world: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    found = {**norms(rank, world), "balanced": loss(rank, world), "objective": objective(rank, world)}
    found["words"] = words(rank, world)
    if rank == world - 1:
        Path(out).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
