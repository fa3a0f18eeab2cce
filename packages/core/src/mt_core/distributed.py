"""What a batch that is dealt out to several processes needs, so that they compute what one process would.

Losses are means over the annotated pixels of a batch, and batch norms average over it. Where every process has a part
of the batch, both need sums over all of them. An engine says when that is so, with `together`; elsewhere, in an
evaluation for example, every process computes for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_together = False


@contextmanager
def together() -> Iterator[None]:
    """Within, the processes of the default group compute on parts of one batch, all of them the same operations."""
    global _together
    before, _together = _together, True
    try:
        yield
    finally:
        _together = before


def everywhere(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes that compute together, without a gradient; `x` where there is one."""
    return _sum(x.detach()) if _together else x


def is_dealt_out() -> bool:
    """Whether the batch that is computed on is a part of one that several processes have."""
    return _together


def processes() -> int:
    """How many processes compute together; 1 where there is one."""
    return dist.get_world_size() if _together else 1


class _EverywhereSum(torch.autograd.Function):
    """The sum over all processes. Every one of them uses it in its part of the loss, so gradients add up, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum(gradients[0])


def _sum(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batch of all processes that compute together.

    As `torch.nn.SyncBatchNorm`, but on every device: mean and variance are two sums over all processes, the second of
    squared distances, so that nothing cancels, and autograd adds the gradients of all of them.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and _together):
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = _sum(x.new_tensor(x.numel() // x.shape[1]))  # values of a channel; every process has some
        mean = _EverywhereSum.apply(x.sum(axes)) / count  # (C,)
        centred = x - mean.view(shape)
        variance = _EverywhereSum.apply(centred.square().sum(axes)) / count  # (C,)
        self._keep(mean.detach(), variance.detach() * count / (count - 1))
        y: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = y.to(input.dtype)
        return result

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as `torch.nn.BatchNorm2d` does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def synchronise_batch_norms(model: nn.Module) -> None:
    """Make every batch norm of a model one that knows of the other processes. Names, weights and buffers stay."""
    known = (_Synchronised, nn.SyncBatchNorm)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, known):
            kind = type(module)
            module.__class__ = type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {})
