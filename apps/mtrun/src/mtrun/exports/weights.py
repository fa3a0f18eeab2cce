"""Exports of weights: a copy of the artefact, and merged encoders that need nothing of ours."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mt_core.artefact import CONFIG, MANIFEST, WEIGHTS, read_spec
from mt_core.attachment import Attachment
from mt_core.errors import CheckpointError, ConfigError, MergeError
from mt_core.files import sha256, write_json
from mt_core.merging import Merged, merge, obstacles
from mt_core.weights import state_hash

from . import Request, difference, refuse_large

ENCODER, DECODER, TASK = "encoder.safetensors", "decoder.safetensors", "task.json"


def artifact(request: Request, folder: Path) -> dict[str, Any]:
    """Copy the artefact; the copy is checked against its manifest."""
    if len(request.tasks) < len(request.built.model.tasks):
        raise ConfigError("format=artifact copies an artefact whole; leave tasks away, or choose another format")
    for name in (CONFIG, WEIGHTS, MANIFEST):
        shutil.copyfile(request.artefact / name, folder / name)
    if request.verify:
        read_spec(folder)
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def merged(request: Request, folder: Path) -> dict[str, Any]:
    """A folder for each task: its plain encoder, its decoder, and what they are."""
    attachment = request.built.model.attachment
    refuse_unmergeable(attachment, request.tasks, request.built.spec.adapter.name)
    return {"tasks": {task: _merged_task(request, task, folder / task) for task in request.tasks}}


def refuse_unmergeable(attachment: Attachment, tasks: Sequence[str], adapter: str) -> None:
    """Say of every site that cannot be folded why. Raises MergeError."""
    found = {(path, why) for task in tasks for path, why in obstacles(attachment, task).items()}
    if not found:
        return
    reasons = []
    for reason in sorted({why for _, why in found}):
        paths = [path for path in attachment.replaced if (path, reason) in found]
        shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
        reasons.append(f"{len(paths)} of {len(attachment.replaced)} sites ({shown}): {reason}")
    raise MergeError(
        f"adapter {adapter} cannot be merged into plain weights. {'; '.join(reasons)}. "
        f"Export it whole: format=torch_export or format=onnx"
    )


def _merged_task(request: Request, task: str, folder: Path) -> dict[str, Any]:
    model, spec = request.built.model, request.built.spec
    found = merge(model.attachment, task)
    layouts = found.encoder.layouts(found.encoder.state_dict())
    if request.layout not in layouts:
        raise ConfigError(f"layout={request.layout}: backbone {spec.backbone.name} has {', '.join(layouts)}")
    folder.mkdir()
    states = {ENCODER: layouts[request.layout], DECODER: dict(model.decoders[task].state_dict())}
    for name, state in states.items():
        _write(folder / name, state)
    measured = _difference(request, found, task)
    if request.verify:
        refuse_large(measured, f"task {task}")
        for name, state in states.items():
            if state_hash(safetensors.torch.load_file(folder / name)) != state_hash(state):
                raise CheckpointError(f"{folder / name}: what was read back is not what was written; is the disk full?")
    value = {
        "task": model.tasks[task].to_json(),
        "backbone": spec.backbone.name,
        "layout": request.layout,
        "image_size": list(spec.image_size),
        "mean": list(found.encoder.mean),
        "std": list(found.encoder.std),
        "levels": [{"channels": level.channels, "stride": level.stride} for level in found.encoder.levels],
        "decoder": {"name": spec.decoder.name, "options": spec.decoder.options},
        "folded": list(found.folded),
        "largest_change": found.largest,
        "difference": measured,
        "files": {name: {"sha256": sha256(folder / name)} for name in states},
    }
    write_json(folder / TASK, value)
    return {"difference": measured, "largest_change": found.largest, "folded": len(found.folded)}


def _write(path: Path, state: Mapping[str, Tensor]) -> None:
    """Tensors that share memory are written each for itself: the libraries load them by name."""
    safetensors.torch.save_file({name: x.detach().clone().contiguous() for name, x in state.items()}, path)


@torch.no_grad()
def _difference(request: Request, found: Merged, task: str) -> dict[str, float]:
    """Between the features of the merged encoder and those of the adapted one, over all levels."""
    model = request.built.model
    images = (request.images(2) - model.mean) / model.std
    adapted = model.attachment.features(model.encoder(images))[task]
    return difference(tuple(found.encoder.eval()(images)), tuple(adapted))
