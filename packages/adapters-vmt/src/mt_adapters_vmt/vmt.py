"""VMT-Adapter and VMT-Adapter-Lite: where the modules of `parallel.py` go (Xin et al., AAAI 2024, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from mt_core.adapter import Adapter
from mt_core.errors import ConfigError
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .parallel import LastParallelAdapter, ParallelAdapter, StageSum
from .projections import KroneckerProjections, Like, Projections


@dataclass
class VMTAdapter(Adapter):
    """Beside every MLP a bottleneck that all tasks share, and a scale and a shift per task that only its decoder sees.

    The trunk runs once whatever the number of tasks.

    Attributes:
        ratio: rho = d / k, width of the block over width of the bottleneck, rounded down; 1, 2, 4 or 8 in the paper.
        gating: s, the share of F that becomes task-specific; the trunk gets the rest. The paper states no value.
    """

    ratio: int = 4
    gating: float = 0.5

    usual_decoder: ClassVar[str] = "segformer"

    def __post_init__(self) -> None:
        if self.ratio < 1:
            raise ConfigError(
                f"ratio={self.ratio}: expected a whole number from 1, the block's width over the adapter's"
            )
        if not 0 < self.gating <= 1:
            raise ConfigError(f"gating={self.gating}: expected a share of F for the tasks, above 0 and up to 1")
        self._stage, self._next = StageSum(), -1  # of the stage that is being adapted, and which block is due

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is not Role.mlp:
            return None
        if site.block != self._next:
            self._stage = StageSum()
        self._next = -1 if site.last else site.block + 1
        width = _width(site, module)
        if width < self.ratio:
            raise ConfigError(
                f"ratio={self.ratio} leaves nothing of the width {width} at {site.path}; give a smaller one"
            )
        one = next(module.parameters())
        shared = self.projections(width, width // self.ratio, {"dtype": one.dtype, "device": one.device})
        kind = LastParallelAdapter if site.last else ParallelAdapter
        return kind(module, streams, shared, width, self.gating, self._stage)

    def projections(self, width: int, hidden: int, like: Like) -> nn.Module:
        """The part that all tasks share: (..., width) -> (..., width)"""
        return Projections(width, hidden, like)


@dataclass
class VMTAdapterLite(VMTAdapter):
    """VMT-Adapter-Lite: projections that are sums of Kronecker products with shared left factors, without LayerNorm.

    Attributes:
        kronecker: m, the number of products in a sum and the size of the shared A^i; 3, 6 or 12 in the paper.
    """

    kronecker: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kronecker < 1:
            raise ConfigError(f"kronecker={self.kronecker}: expected a whole number of products from 1")

    def projections(self, width: int, hidden: int, like: Like) -> nn.Module:
        m = self.kronecker
        if (m - 1) * -(-width // m) >= width:  # the last blocks would be cut away whole
            raise ConfigError(f"kronecker={m} does not part the width {width}; give a number that divides it")
        return KroneckerProjections(width, hidden, m, like)


def _width(site: Site, module: nn.Module) -> int:
    """The width of the tokens that an MLP reads, by its first linear layer."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return layer.in_features
    raise ConfigError(f"{site.path} ({type(module).__name__}) has no linear layer, which tells VMT-Adapter the width")
