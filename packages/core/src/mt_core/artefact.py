"""The artefact: the trained part of a model as a small folder that can be shared, checked and loaded.

    adapter_config.json          what the model is (`ModelSpec`)
    adapter_model.safetensors    adapter, trained norms and decoders; never a frozen weight
    manifest.json                SHA-256 and size of each file, and the hash of the base; written last

An artefact without a manifest is one that was never finished.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .build import Built, Entry, ModelSpec, build
from .errors import CheckpointError, MTError
from .files import atomic_path, sha256, write_json
from .model import MultiTaskModel

FORMAT = 1
CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
LARGEST_JSON = 4 << 20  # bytes; a description is a few kilobytes


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Every trainable parameter and every persistent buffer (batch norm's statistics), by name."""
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    persistent = model.state_dict().keys()
    buffers = {name: b.detach() for name, b in model.named_buffers() if name in persistent}
    return {**trainable, **buffers}


def load_trained(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put a trained state into a model built from the same description.

    Raises:
        CheckpointError: if a name is missing or unexpected, or a shape or type differs; nothing is changed then.
    """
    own = trained_state(model)
    check_trained(own, state, source)
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def check_trained(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse a trained state whose names, types or shapes are not a model's own. Raises CheckpointError."""
    if own.keys() != state.keys():
        missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise CheckpointError(f"{source}: missing {missing[:3] or 'nothing'}, unexpected {extra[:3] or 'nothing'}")
    for name, value in state.items():
        found, expected = (value.dtype, tuple(value.shape)), (own[name].dtype, tuple(own[name].shape))
        if found != expected:
            raise CheckpointError(f"{source}: {name} is {found[0]} {found[1]}, expected {expected[0]} {expected[1]}")


def save(folder: Path, built: Built, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the artefact of a model into a new folder.

    Args:
        folder: where; must not exist yet or be empty.
        built: the model, as `build` gave it.
        state: the trained state to write instead of the model's own (an average of the weights, for example).

    Raises:
        CheckpointError: if there is something in the folder already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; an artefact is written into a new folder")
    state = trained_state(built.model) if state is None else state
    write_json(folder / CONFIG, {"format": FORMAT, "model": built.spec.to_json()})
    with atomic_path(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file({name: x.contiguous().cpu() for name, x in state.items()}, temporary)
    files = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in (CONFIG, WEIGHTS)
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "base_sha256": built.base, "files": files})


def read_spec(folder: Path) -> ModelSpec:
    """The description in an artefact, after its files have been checked against the manifest.

    Raises:
        CheckpointError: naming the file that is missing, damaged or too many.
    """
    _verify(folder)
    config = _read_json(folder / CONFIG, ("format", "model"))
    try:
        return ModelSpec.from_json(config["model"])
    except MTError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error


def load_artefact(folder: Path, device: str | torch.device = "cpu", checkpoint: str = "") -> Built:
    """Build the model of an artefact and load its trained weights.

    Args:
        folder: the artefact.
        device: where to.
        checkpoint: the file of the backbone's pretrained weights, where it is no longer where it was.

    Raises:
        CheckpointError: if the artefact is damaged, or the frozen base is not the one it was trained on.
        ConfigError: if a plugin it needs is not installed.
    """
    spec = read_spec(folder)
    if checkpoint:
        options = {**spec.backbone.options, "checkpoint": checkpoint, "pretrained": False}
        spec = replace(spec, backbone=Entry(spec.backbone.name, options))
    state = _read_weights(folder)
    check_trained(_shapes(spec, folder), state, str(folder / WEIGHTS))  # before memory is taken for a model
    built = build(spec)
    expected = _read_json(folder / MANIFEST, ("format", "base_sha256", "files"))["base_sha256"]
    if built.base != expected:
        raise CheckpointError(
            f"{folder}: trained on another base: the weights of backbone {spec.backbone.name} have hash "
            f"{built.base[:12]}, the artefact needs {str(expected)[:12]}; give the weights it was trained with"
        )
    load_trained(built.model, state, str(folder / WEIGHTS))
    built.model.to(device).eval()
    return built


def load(path: str | Path, device: str | torch.device = "cpu", checkpoint: str = "") -> MultiTaskModel:
    """The trained model in an artefact or a run's folder, ready to predict. See `load_artefact` and `find`."""
    return load_artefact(find(Path(path)), device, checkpoint).model


def find(path: Path) -> Path:
    """The artefact that `path` means: itself, or of a run's folder the best, or else the newest complete one.

    Raises:
        CheckpointError: if there is none.
    """
    if (path / MANIFEST).is_file():
        return path
    complete = sorted((folder.parent for folder in path.glob(f"artefacts/*/{MANIFEST}")), key=_age)
    if not complete:
        raise CheckpointError(
            f"{path}: no artefact there; expected a run's folder, or one with {CONFIG} and {MANIFEST}"
        )
    best = [folder for folder in complete if folder.name.startswith("best")]
    return (best or complete)[-1]


def _age(folder: Path) -> tuple[str, int, str]:
    """The order of best-000010, last-000010, last-1000000."""
    kind, _, step = folder.name.rpartition("-")
    return kind, int(step) if step.isdecimal() else 0, step


def _read_weights(folder: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}") from error


def _shapes(spec: ModelSpec, folder: Path) -> dict[str, Tensor]:
    """The trained state that a description leads to, without values; a description may be anybody's."""
    try:
        return trained_state(build(spec, "meta").model)
    except MTError as error:
        raise type(error)(f"{folder / CONFIG} asks for what cannot be: {error}") from error
    except Exception as error:  # torch refuses what makes no sense in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{folder / CONFIG} describes no model that can be built: {reason}") from error


def _verify(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected an artefact with {CONFIG}, {WEIGHTS} and {MANIFEST}")
    manifest = _read_json(folder / MANIFEST, ("format", "base_sha256", "files"))
    files = manifest["files"]
    if manifest["format"] != FORMAT or not isinstance(files, dict) or set(files) != {CONFIG, WEIGHTS}:
        raise CheckpointError(
            f"{folder / MANIFEST}: not a manifest of format {FORMAT}; was it written by a newer version?"
        )
    if extra := sorted({p.name for p in folder.iterdir()} - {CONFIG, WEIGHTS, MANIFEST}):
        raise CheckpointError(f"{folder / extra[0]} does not belong to the artefact; remove it")
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; the artefact is incomplete")
        if (
            not isinstance(entry, dict)
            or path.stat().st_size != entry.get("bytes")
            or sha256(path) != entry.get("sha256")
        ):
            raise CheckpointError(f"{path} is damaged: it differs from the sum in {MANIFEST}; copy it again")


def _read_json(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict) or set(value) != set(keys):
        raise CheckpointError(f"{path}: expected an object with {', '.join(keys)}")
    return value


def read_json(path: Path) -> Any:
    """What a small JSON file holds. For files that anybody may have written: no NaN, no infinity, UTF-8 only.

    Raises:
        CheckpointError: naming the file.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path} cannot be read: it is missing, or no file")
        if path.stat().st_size > LARGEST_JSON:
            raise CheckpointError(f"{path} is {path.stat().st_size} bytes; a description has a few kilobytes")
        return json.loads(path.read_bytes().decode(), parse_constant=_no_number, parse_float=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)
