"""mt-core: task streams, the contracts of backbones, adapters, decoders, data sets and tasks, and their registry.

    import mt_core
    model = mt_core.load("runs/mtlora")
    logits = model(images)["depth"]             # images in [0, 1], (B, 3, H, W)
    depth = model.predict(images)["depth"]      # (B, 1, H, W), metres

Names are imported when they are first used, so that `import mt_core` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .hookspecs import hookimpl

if TYPE_CHECKING:
    from .adapter import Adapter, SiteModule, StreamModule
    from .artefact import load
    from .attachment import Attachment, attach
    from .backbone import Backbone, Encoder, Level
    from .dataset import Batch, Dataset, Sample
    from .decoder import Decoder
    from .discovery import plugins, registry
    from .errors import CheckpointError, ConfigError, DataError, MTError, PluginError
    from .hub import from_pretrained
    from .merging import merge
    from .model import MultiTaskModel, Objective
    from .site import Join, Prompts, Residual, Role, Site, Tap
    from .streams import Stream, Streams
    from .task import Task

_HOMES = {
    "adapter": ("Adapter", "SiteModule", "StreamModule"),
    "artefact": ("load",),
    "attachment": ("Attachment", "attach"),
    "backbone": ("Backbone", "Encoder", "Level"),
    "dataset": ("Batch", "Dataset", "Sample"),
    "decoder": ("Decoder",),
    "errors": ("CheckpointError", "ConfigError", "DataError", "MTError", "PluginError"),
    "hub": ("from_pretrained",),
    "merging": ("merge",),
    "model": ("MultiTaskModel", "Objective"),
    "planning": ("PlanningAdapter",),
    "discovery": ("plugins", "registry"),
    "site": ("Join", "Prompts", "Residual", "Role", "Site", "Tap"),
    "streams": ("Stream", "Streams"),
    "task": ("Task",),
}
_MODULE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Adapter",
    "Attachment",
    "Backbone",
    "Batch",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Dataset",
    "Decoder",
    "Encoder",
    "Join",
    "Level",
    "MTError",
    "MultiTaskModel",
    "Objective",
    "PlanningAdapter",
    "PluginError",
    "Prompts",
    "Residual",
    "Role",
    "Sample",
    "Site",
    "SiteModule",
    "Stream",
    "StreamModule",
    "Streams",
    "Tap",
    "Task",
    "attach",
    "from_pretrained",
    "hookimpl",
    "load",
    "merge",
    "plugins",
    "registry",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE[name]}", __name__), name)
    globals()[name] = value
    return value
