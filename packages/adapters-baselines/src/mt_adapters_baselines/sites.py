"""Which sites an adapter is put at: the option `sites`, and how wide they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mt_core.adapter import SiteModule
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.options import refuse_unknown
from mt_core.site import Role


def check_sites(sites: Sequence[str], known: Sequence[Role]) -> None:
    """Raises ConfigError if an option `sites` names a role that is none of `known`, or none at all."""
    refuse_unknown("sites", sites, known)
    if not sites:
        raise ConfigError(f"sites=[]: expected at least one of {', '.join(known)}")


def refuse_none(encoder: Encoder, sites: Sequence[str]) -> None:
    """Raises ConfigError if the encoder has no layer at all that an option `sites` names."""
    if not any(isinstance(module, SiteModule) for module in encoder.modules()):
        roles = dict.fromkeys(site.role for site in encoder.sites() if not site.structural)
        raise ConfigError(
            f"sites={list(sites)}: {type(encoder).__name__} has no such layer to adapt; it has {', '.join(roles)}"
        )


def width(module: nn.Module) -> int:
    """The width of what a linear layer, or a whole MLP, gives."""
    return module.out_features if isinstance(module, nn.Linear) else next(module.parameters()).shape[-1]
