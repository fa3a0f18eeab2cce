"""The methods that put bottlenecks behind layers: adapters, low-rank adapters, Compacter, Compacter++, VL-Adapter."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .bottleneck import (
    Activation,
    Bottleneck,
    Dense,
    Kronecker,
    LowRank,
    Projection,
    SharedBottleneck,
    TaskBottleneck,
)
from .sites import check_sites, refuse_none, width


@dataclass
class BottleneckAdapter(Adapter):
    """A bottleneck behind every MLP: y + relu(LN(y) W_down + b_down) W_up + b_up (Houlsby et al.; VMT-Adapter, eq. 1).

    Attributes:
        per_task: a bottleneck for each task, each a stream of its own (Multiple Adapter); else one for all (Shared).
        reduction: how many times narrower the bottleneck is, rho.
        sites: behind which layers: mlp (Pfeiffer et al.), also proj, the attention's output (Houlsby et al.).
        norm: put a LayerNorm before the bottleneck, trained with it.
        bias: give both projections a bias.
        train_norms: train the scale and bias of the encoder's LayerNorms, shared by all tasks.
    """

    per_task: bool = False
    reduction: int = 2
    sites: list[str] = field(default_factory=lambda: ["mlp"])
    norm: bool = True
    bias: bool = True
    train_norms: bool = False

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise ConfigError(f"reduction={self.reduction}: expected at least 1, which keeps the width")
        check_sites(self.sites, (Role.mlp, Role.proj))

    @property
    def activation(self) -> Activation:
        """Between the projections."""
        return F.relu

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm and self.train_norms:
            return module
        if not site.among(self.sites):
            return None

        def make() -> Bottleneck:
            return self._bottleneck(site, module)

        if self.per_task:
            return TaskBottleneck(module, streams, make, self.activation)
        return SharedBottleneck(module, make, self.activation)

    def attached(self, encoder: Encoder) -> None:
        refuse_none(encoder, self.sites)

    def project(self, like: Tensor, inputs: int, outputs: int) -> Projection:
        """One of the two projections."""
        return Dense(like, inputs, outputs, self.bias)

    def _bottleneck(self, site: Site, module: nn.Module) -> Bottleneck:
        like, channels = next(module.parameters()), width(module)
        inner = channels // self.reduction
        self.check(site, channels, inner)
        down, up = self.project(like, channels, inner), self.project(like, inner, channels)
        return Bottleneck(down, up, channels if self.norm else 0)

    def check(self, site: Site, channels: int, inner: int) -> None:
        """Raises ConfigError if a site's widths cannot be."""
        if not inner:
            raise ConfigError(f"reduction={self.reduction} leaves nothing of the {channels} channels of {site.path}")


@dataclass
class VLAdapter(BottleneckAdapter):
    """VL-Adapter (Sung et al., CVPR 2022): one adapter for all tasks, and the encoder's LayerNorms trained."""

    train_norms: bool = True


@dataclass
class LowRankAdapter(BottleneckAdapter):
    """Adapters whose projections are themselves of low rank: W = U V (Karimi Mahabadi et al.; Sung et al.).

    Between them GELU: without a norm before it, ReLU may cut a whole narrow bottleneck off.

    Attributes:
        rank: of each projection.
    """

    norm: bool = False
    rank: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ConfigError(f"rank={self.rank}: expected projections of rank 1 or more")

    @property
    def activation(self) -> Activation:
        return F.gelu

    def project(self, like: Tensor, inputs: int, outputs: int) -> Projection:
        return LowRank(like, inputs, outputs, self.bias, self.rank)


@dataclass
class Compacter(BottleneckAdapter):
    """Compacter (Karimi Mahabadi et al., NeurIPS 2021): projections are sums of Kronecker products of low rank.

    W = sum_i A_i (x) (s_i t_i), behind attention and MLP. All sites share the A_i; with `per_task` each task has a set.

    Attributes:
        rank: of s_i t_i.
        parts: n, how many products are summed; A_i is n x n. It divides the widths on both sides.
    """

    sites: list[str] = field(default_factory=lambda: ["proj", "mlp"])
    per_task: bool = True
    rank: int = 1
    parts: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1 or self.parts < 1:
            raise ConfigError(f"rank={self.rank} parts={self.parts}: expected two positive numbers")

    @property
    def activation(self) -> Activation:
        return F.gelu

    def project(self, like: Tensor, inputs: int, outputs: int) -> Projection:
        return Kronecker(like, inputs, outputs, self.bias, self.rank, self.parts)

    def check(self, site: Site, channels: int, inner: int) -> None:
        super().check(site, channels, inner)
        if channels % self.parts or inner % self.parts:
            raise ConfigError(
                f"parts={self.parts} does not divide the widths {channels} and {inner} (reduction={self.reduction}) "
                f"of {site.path}; choose adapter.parts or adapter.reduction to fit"
            )

    def attached(self, encoder: Encoder) -> None:
        """Give all projections (of a task) the A_i of the first."""
        super().attached(encoder)
        rules: dict[str, nn.Parameter] = {}
        for module in encoder.modules():
            if isinstance(module, (SharedBottleneck, TaskBottleneck)):
                for task, bottleneck in module.bottlenecks.items():
                    for projection in (bottleneck.down, bottleneck.up):
                        projection.rule = rules.setdefault(task, projection.rule)  # type: ignore[arg-type]


@dataclass
class CompacterPP(Compacter):
    """Compacter++: the same, behind the MLPs only."""

    sites: list[str] = field(default_factory=lambda: ["mlp"])
