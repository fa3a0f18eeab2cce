"""What core itself contributes, by the same door as every plugin."""

from __future__ import annotations

from collections.abc import Mapping

from .hookspecs import hookimpl


@hookimpl
def mt_decoders() -> Mapping[str, type | str]:
    names = {"hrnet": "HRNet", "aspp": "ASPP", "segformer": "Segformer"}
    return {name: f"mt_core.decoders.{name}:{cls}" for name, cls in names.items()}


@hookimpl
def mt_tasks() -> Mapping[str, type | str]:
    names = ("Segmentation", "HumanParts", "Saliency", "Edges", "Depth", "Normals")
    kinds = ("segmentation", "human_parts", "saliency", "edges", "depth", "normals")
    return {kind: f"mt_core.tasks:{name}" for kind, name in zip(kinds, names, strict=True)}


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {"frozen": "mt_core.frozen:Frozen"}
