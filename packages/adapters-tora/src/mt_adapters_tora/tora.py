"""ToRA: where the Tucker updates go, and what keeps them orthogonal (TA-LoRA on mSAM; MTSAM, sections 3.2 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto

from torch import Tensor, nn

from mt_core.adapter import Adapter
from mt_core.errors import ConfigError
from mt_core.options import refuse_unknown
from mt_core.site import LINEAR, Role, Site
from mt_core.streams import Streams

from .tucker import TuckerLinear, norm, squared

TERMS = ("u1", "u2", "core")


class Measure(StrEnum):
    """How R (eq. 5) measures a Gram matrix's distance from the identity, and pools the terms over layers."""

    norm = auto()  # mean of Frobenius norms: what the authors' runs use, and what trains
    squared = auto()  # sum of squared norms: eq. 5 as printed; about 3.4e8 a layer at the start of SAM ViT-L


@dataclass
class ToRA(Adapter):
    """One Tucker tensor per adapted layer; each task's update is a slice of it. Every task is a stream of its own.

    Defaults are the authors': p = q = 32, v = 8, scale 0.5, dropout 0.1, factors from N(0, 1), the fused qkv, the
    LayerNorms of the blocks trained. `first_block` and `init_scale` are ours.

    Attributes:
        ranks: p, q, v: of the output, the input and the tasks.
        scale: factor on the update.
        dropout: on the update's input.
        sites: which layers get a tensor: qkv (q and kv where a backbone has them apart), proj, fc1, fc2, merge.
        train_norms: train the scale and bias of the LayerNorms.
        orthogonal: which factors the regulariser keeps orthogonal: u1, u2, core (Table 5 switches them).
        measure: `norm` (the authors' runs) or `squared` (eq. 5 as printed).
        first_block: adapt only from this block on; the tasks share one stream, and its cost, before it. Ours.
        init_scale: standard deviation of the factors at the start. 1 is the paper's; without its warm-up one Adam
            step at 1e-3 then moves the update by about 0.09 rms, so short runs want less. Ours.
    """

    ranks: tuple[int, int, int] = (32, 32, 8)
    scale: float = 0.5
    dropout: float = 0.1
    sites: list[str] = field(default_factory=lambda: ["qkv"])
    train_norms: bool = True
    orthogonal: list[str] = field(default_factory=lambda: ["u1", "u2", "core"])
    measure: Measure = Measure.norm
    first_block: int = 0
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        if min(self.ranks) < 1:
            raise ConfigError(f"ranks={list(self.ranks)}: expected three positive numbers p, q, v")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: expected a probability below 1")
        if self.first_block < 0 or self.init_scale <= 0:
            raise ConfigError(
                f"first_block={self.first_block} init_scale={self.init_scale}: expected a block from 0, a scale above 0"
            )
        refuse_unknown("sites", self.sites, LINEAR)
        refuse_unknown("orthogonal", self.orthogonal, TERMS)

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm and self.train_norms:
            return module
        if not isinstance(module, nn.Linear) or not site.among(self.sites) or site.block < self.first_block:
            return None
        measure = squared if self.measure is Measure.squared else norm
        return TuckerLinear(
            module, streams, self.ranks, self.scale, self.dropout, self.init_scale, self.orthogonal, measure
        )

    def pool(self, terms: Tensor) -> Tensor:
        return terms.sum() if self.measure is Measure.squared else terms.mean()
