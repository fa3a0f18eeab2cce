"""Evaluation protocols by name: published results compare only where everything that is named here is the same."""

from __future__ import annotations

from ..errors import ConfigError
from .astmt import ASTMT
from .mtan import MTAN
from .mtsam import MTSAM
from .protocol import Measure, Protocol, Setting

__all__ = ["PROTOCOLS", "Measure", "Protocol", "Setting", "protocol"]

PROTOCOLS: dict[str, Protocol] = {rules.name: rules for rules in (ASTMT, MTAN, MTSAM)}


def protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ConfigError."""
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; choose one of {', '.join(sorted(PROTOCOLS))}")
    return PROTOCOLS[name]
