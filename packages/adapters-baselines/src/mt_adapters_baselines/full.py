"""Full fine-tuning: no adapter, the whole encoder is trained for all tasks together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.site import Site
from mt_core.streams import Streams


@dataclass
class Full(Adapter):
    """Trains every parameter of the encoder, also those that belong to no site (SAM's position table and neck)."""

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return module

    def attached(self, encoder: Encoder) -> None:
        encoder.requires_grad_(True)
