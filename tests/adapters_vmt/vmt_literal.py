"""VMT-Adapter as its equations stand: one task and one stage at a time, in passes of a plain encoder of their own.

Slow on purpose. An ordinary module stands for every MLP and knows nothing of streams, tasks or other blocks: for the
features of task i at stage j the whole encoder runs with the trunk's arithmetic, but for the last block of stage j,
which also adds what the blocks of that stage have extracted for task i; what comes after is thrown away.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mt_adapters_vmt.parallel import ParallelAdapter
from mt_adapters_vmt.projections import KroneckerProjections
from mt_core.attachment import Attachment, put
from mt_core.backbone import Encoder
from mt_core.site import Role


class Pass:
    """Which task and stage a pass is for, and f_i of the blocks of that stage so far."""

    def __init__(self, task: str, stage: int) -> None:
        self.task, self.stage = task, stage
        self.terms: list[Tensor] = []


class Block(nn.Module):
    """MLP(x) + (1 - s) F; in the last block of the stage asked for also the sum of f_i over its blocks."""

    def __init__(self, mlp: nn.Module, adapter: ParallelAdapter, stage: int, last: bool, run: Pass) -> None:
        super().__init__()
        self.mlp, self.stage, self.last, self.run = mlp, stage, last, run
        self.adapter = [adapter]  # in a list: not a part of this

    def forward(self, x: Tensor) -> Tensor:
        (adapter,), run = self.adapter, self.run
        s = adapter.gating
        features = latent(adapter.shared, x)
        y = self.mlp(x) + (1 - s) * features
        if self.stage == run.stage:
            run.terms.append(adapter.alpha[run.task] * (s * features) + adapter.gamma[run.task])  # eq. 4
            if self.last:
                y = y + sum(run.terms)
        return y


def features(plain: Encoder, attachment: Attachment, images: Tensor, task: str) -> list[Tensor]:
    """F_i^ms of eq. 5. (B, 3, H, W) -> [(B, C_l, H_l, W_l), ...]"""
    return [_level(plain, attachment, images, Pass(task, stage)) for stage in range(len(plain.levels))]


def trunk(plain: Encoder, attachment: Attachment, images: Tensor) -> list[Tensor]:
    """f_g of every stage. (B, 3, H, W) -> [(B, C_l, H_l, W_l), ...]"""
    return _with_literal_blocks(plain, attachment, Pass("", -1))(images)


def latent(shared: nn.Module, x: Tensor) -> Tensor:
    """F = ReLU(x W_down) W_up   (eq. 3), row by row of W where it is a sum of Kronecker products (eq. 6)."""
    if isinstance(shared, KroneckerProjections):
        down = sum(torch.kron(a, b) for a, b in zip(shared.a, shared.b_down, strict=True))
        up = sum(torch.kron(a, b) for a, b in zip(shared.a, shared.b_up, strict=True))
        width = x.shape[-1]
        return torch.relu(x @ down[:width]) @ up[:, :width] + shared.bias
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    normed = (x - mean) / torch.sqrt(variance + 1e-5) * shared.norm.weight + shared.norm.bias
    return torch.relu(normed @ shared.down.weight.T) @ shared.up.weight.T + shared.up.bias


def _level(plain: Encoder, attachment: Attachment, images: Tensor, run: Pass) -> Tensor:
    return _with_literal_blocks(plain, attachment, run)(images)[run.stage]


def _with_literal_blocks(plain: Encoder, attachment: Attachment, run: Pass) -> Encoder:
    encoder = copy.deepcopy(plain)
    for site in plain.sites():
        if site.role is Role.mlp:
            adapter = attachment.encoder.get_submodule(site.path)
            assert isinstance(adapter, ParallelAdapter)
            put(encoder, site.path, Block(encoder.get_submodule(site.path), adapter, site.stage, site.last, run))
    return encoder
