"""Pretrained weights: read without executing anything, matched key by key, identified by a hash."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from .discovery import plugins
from .errors import CheckpointError


def read_state(uri: str) -> dict[str, Tensor]:
    """The tensors at `uri`: whatever a plugin's `mt_weights` answers, or else a local file (.safetensors, or a torch
    file read with `weights_only`). A state dict nested under "model" or "state_dict" is unwrapped.

    Raises:
        CheckpointError: if there is no such file, it is damaged, or it would execute code.
    """
    if (found := plugins().hook.mt_weights(uri=uri)) is not None:
        return dict(found)
    path = Path(uri)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {uri}: no such file, and no plugin knows it; give a weights file")
    _refuse_inflating(path)
    try:
        state = _read(path)
    except Exception as error:
        # torch's reader meets a damaged file with errors of a dozen types, and advises to load it unsafely
        if foreign := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"checkpoint {path}: refused, it holds more than tensors or is damaged ({foreign[1]}), and "
                f"unpickling it could run code; re-save it as safetensors or as a plain state dict"
            ) from error
        raise CheckpointError(
            f"checkpoint {path} ({path.stat().st_size} bytes) cannot be read, it is truncated or not a weights file "
            f"({type(error).__name__})"
        ) from error
    return _tensors(state, path)


def load_into(encoder: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into `encoder`; every key must match, in both directions.

    Raises:
        CheckpointError: if a key is missing or unexpected, or a shape differs; nothing is copied then.
    """
    own = encoder.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not fit this model: {_some(missing)} missing, {_some(unexpected)} unexpected; "
            f"is it for another backbone?"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise CheckpointError(
                f"{source} does not fit this model: {name} has shape {tuple(value.shape)}, expected "
                f"{tuple(own[name].shape)}; is it for another backbone, size or number of tasks?"
            )
    with torch.no_grad():
        encoder.load_state_dict(dict(state))


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values: says whether two sets of weights are the same."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _refuse_inflating(path: Path) -> None:
    """Look into a zip file, as torch writes them, without unpacking it: a small file must not fill the memory."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's reader will say what is wrong with it
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"checkpoint {path}: refused, {path.stat().st_size} bytes that unpack to {unpacked}; torch.save "
            f"compresses nothing: re-save it as safetensors"
        )


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(state: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(map(_is_named_tensor, state.items())):
        found = type(state).__name__
        raise CheckpointError(f"checkpoint {path}: expected a state dict of names and tensors, found {found}")
    return state


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} keys ({shown})" if names else "no key"
