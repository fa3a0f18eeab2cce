"""No adapter at all: only the decoders are trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .adapter import Adapter
from .site import Site
from .streams import Streams


@dataclass
class Frozen(Adapter):
    """Leaves every site as it is. What each method is measured against."""

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return None
