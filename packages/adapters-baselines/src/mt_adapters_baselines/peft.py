"""Any layer-replacing method of Hugging Face's PEFT as an adapter: where the layers of `bridge.py` go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import LINEAR, Role, Site
from mt_core.streams import Streams

from .bridge import SharedPeft, TaskPeft, configuration
from .sites import check_sites, refuse_none


@dataclass
class Peft(Adapter):
    """A method of PEFT (LoHa, LoKr, OFT, BOFT, HRA, DoRA, ...) on chosen layers, shared or one copy for each task.

    Methods that replace no layer, or whose layers do not stand alone, are refused with the reason.

    Attributes:
        method: its name in PEFT, in lower case (`peft.PeftType`).
        per_task: a copy for each task, and a stream of its own from the first adapted layer on; else one for all.
        sites: which layers: qkv (q and kv where a backbone has them apart), proj, fc1, fc2, merge; norm where the
            method adapts such layers (ln_tuning).
        options: what PEFT's configuration of the method takes, its defaults otherwise (`{r: 4, alpha: 8}`).
    """

    method: str = "loha"
    per_task: bool = True
    sites: list[str] = field(default_factory=lambda: ["qkv"])
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_sites(self.sites, (*LINEAR, Role.norm))
        configuration(self.method, self.options)

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if not site.among(self.sites) or (site.role is not Role.norm and not isinstance(module, nn.Linear)):
            return None
        config = configuration(self.method, self.options)
        try:
            return TaskPeft(module, streams, config) if self.per_task else SharedPeft(module, config)
        except ValueError as error:
            raise ConfigError(
                f"method={self.method} cannot adapt {site.path} ({type(module).__name__}) with "
                f"options={self.options}: {error}"
            ) from error

    def attached(self, encoder: Encoder) -> None:
        refuse_none(encoder, self.sites)
