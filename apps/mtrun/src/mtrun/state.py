"""Resumable state on disk: a folder per saved step, of which the newest complete one is taken.

    state/step-000010/
        tensors.safetensors   what the engine keeps: trained parameters, optimiser, average; never a frozen weight
        state.json            how far the run is, what it trains, the hash of its frozen weights, its plan
        manifest.json         SHA-256 and size of the two; written last

A folder without a manifest was never finished. Nothing in it depends on the number of processes. What is random in a
step, the learning rate and the pictures follow from seed, step and position, so that no generator has to be kept.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mt_core.artefact import read_json
from mt_core.errors import CheckpointError
from mt_core.files import atomic_path, sha256, write_json

log = logging.getLogger(__name__)

FORMAT = 1
TENSORS, VALUES, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class State:
    """What was saved after a step.

    Attributes:
        values: plain values, as JSON holds them.
        tensors: by name, on the CPU.
    """

    step: int
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class States:
    """The states of a run.

    Args:
        folder: where they are; made when it is needed.
        keep: how many are kept.

    Attributes:
        saved: steps of those that are kept and known to be whole, the newest last.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.saved: list[int] = []

    def save(self, state: State) -> None:
        """Write a state, then remove those that are too many. Until it is whole, the ones before it stay.

        Raises:
            OSError, SafetensorError: if it cannot be written; nothing of it is left then.
        """
        if state.step in self.saved:
            return  # it was taken up from there, and no step was taken since
        target = self._place(state.step)
        if target.exists():
            shutil.rmtree(target)  # never finished, or damaged
        try:
            _write(target, state)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        _sync(self.folder)
        self.saved = [*self.saved, state.step][-self.keep :]
        for step, path in self._found():
            if step not in self.saved:
                shutil.rmtree(path)

    def newest(self) -> State:
        """The newest state that is complete; says which ones are not.

        Raises:
            CheckpointError: if there is none.
        """
        found = self._found()
        for i, (step, path) in reversed(list(enumerate(found))):
            try:
                state = _read(path, step)
            except CheckpointError as error:
                log.warning("%s; the state before it is taken", error)
                continue
            self.saved = [older for older, place in found[:i] if (place / MANIFEST).is_file()] + [step]
            return state
        raise CheckpointError(
            f"{self.folder}: no complete state to go on from, {len(found)} damaged or unfinished; start a new run"
        )

    def _found(self) -> list[tuple[int, Path]]:
        """Whatever looks like a state, whole or not, in the order of the steps."""
        found = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in self.folder.glob("step-*")]
        return sorted((int(match[1]), path) for match, path in found if match)

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def _write(folder: Path, state: State) -> None:
    tensors = {name: x.detach().cpu().contiguous() for name, x in state.tensors.items()}
    with atomic_path(folder / TENSORS) as temporary:
        safetensors.torch.save_file(tensors, temporary)
    write_json(folder / VALUES, state.values)
    files = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in (TENSORS, VALUES)
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "step": state.step, "files": files})


def _read(folder: Path, step: int) -> State:
    """The state in a folder, after its files have been checked against the manifest."""
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} was never finished: it has no {MANIFEST}")
    manifest = _read_object(folder / MANIFEST)
    files = manifest.get("files")
    if (manifest.get("format"), manifest.get("step")) != (FORMAT, step) or not isinstance(files, dict):
        raise CheckpointError(f"{folder / MANIFEST}: not the manifest of step {step} in format {FORMAT}")
    for name in (TENSORS, VALUES):
        path, entry = folder / name, files.get(name)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; the state is incomplete")
        if entry != {"sha256": sha256(path), "bytes": path.stat().st_size}:
            raise CheckpointError(f"{path} is damaged: its sum is not the one in {MANIFEST}")
    try:
        return State(step, _read_object(folder / VALUES), safetensors.torch.load_file(folder / TENSORS))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / TENSORS} cannot be read as tensors: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no object; it is not the description of a state")
    return value


def _sync(folder: Path) -> None:
    """The folder's list of names reaches the disk before anything is removed from it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
