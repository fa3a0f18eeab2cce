"""HyperFormer (Karimi Mahabadi et al., ACL 2021), Polyhistor and Polyhistor-Lite (Liu et al., NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import nn

from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .hypernetwork import (
    DecomposedHead,
    DenseHead,
    GeneratedBottleneck,
    HeadMaker,
    HeadPerWidth,
    HyperNetwork,
    ScaledTemplates,
)
from .sites import check_sites, refuse_none, width


@dataclass
class HyperFormer(Adapter):
    """A bottleneck for each task behind every MLP; one hyper-network makes the weights of all of them.

    Every task is a stream of its own from the first bottleneck on. The papers leave the sizes open.

    Attributes:
        reduction: how many times narrower the bottlenecks are.
        embedding: size of the embeddings of tasks and layers, and of what the heads see.
        hidden: size of the layer that mixes them.
        sites: behind which layers: mlp, proj.
        train_norms: train the scale and bias of the encoder's LayerNorms, shared by all tasks.
    """

    reduction: int = 8
    embedding: int = 64
    hidden: int = 64
    sites: list[str] = field(default_factory=lambda: ["mlp"])
    train_norms: bool = False

    def __post_init__(self) -> None:
        if min(self.reduction, self.embedding, self.hidden) < 1:
            raise ConfigError(
                f"reduction={self.reduction} embedding={self.embedding} hidden={self.hidden}: "
                f"expected three numbers from 1"
            )
        check_sites(self.sites, (Role.mlp, Role.proj))

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm and self.train_norms:
            return module
        if not site.among(self.sites):
            return None
        channels = width(module)
        if channels < self.reduction:
            raise ConfigError(f"reduction={self.reduction} leaves nothing of the {channels} channels of {site.path}")
        return GeneratedBottleneck(module, streams, (channels, channels // self.reduction))

    def attached(self, encoder: Encoder) -> None:
        """Make the hyper-network, now that all layers are known, and give it to each."""
        refuse_none(encoder, self.sites)
        layers = [module for module in encoder.modules() if isinstance(module, GeneratedBottleneck)]
        like = next(layers[0].base.parameters())
        network_class, head = self.network()
        tasks, shapes = layers[0].full_after.tasks, [module.shape for module in layers]
        network = network_class(like, tasks, shapes, self.embedding, self.hidden, head)
        for number, module in enumerate(layers):
            module.network, module.layer = network, number

    def network(self) -> tuple[type[HyperNetwork], HeadMaker]:
        """Which hyper-network, and how its heads are made."""
        return HeadPerWidth, DenseHead


@dataclass
class Polyhistor(HyperFormer):
    """The same with decomposed heads: the weights they make are products of two matrices.

    Attributes:
        rank: of the products.
    """

    rank: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ConfigError(f"rank={self.rank}: expected products of rank 1 or more")

    def network(self) -> tuple[type[HyperNetwork], HeadMaker]:
        return HeadPerWidth, partial(DecomposedHead, rank=self.rank)


@dataclass
class PolyhistorLite(Polyhistor):
    """And the heads make templates of the smallest width alone; a kernel for each layer scales them up."""

    def network(self) -> tuple[type[HyperNetwork], HeadMaker]:
        return ScaledTemplates, partial(DecomposedHead, rank=self.rank)
