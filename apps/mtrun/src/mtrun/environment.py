"""What a run was computed with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from mt_core.discovery import plugins

from . import __version__


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, plugins and the machine, as plain values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": version("torch"),
        "mtrun": __version__,
        "plugins": sorted(set(plugins().sources.values())),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }
