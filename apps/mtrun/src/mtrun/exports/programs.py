"""Exports of programs: the whole multi-task model, traced once, for any number of pictures at a time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mt_core.errors import CheckpointError, ConfigError
from mt_core.files import write_json

from . import BATCHES, Request, compare

PROGRAM, ONNX, DESCRIPTION = "model.pt2", "model.onnx", "model.json"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST_ONNX = 1_500_000_000  # bytes of weights in the file itself, which may not reach 2 GiB


def torch_export(request: Request, folder: Path) -> dict[str, Any]:
    """The model as a `torch.export` program: `torch.export.load(FILE).module()(images)` gives the logits by task."""
    path = folder / PROGRAM
    with _quiet():
        torch.export.save(_program(request), path)
    found = {}
    if request.verify:
        with _quiet():
            program = torch.export.load(path).module()
        found = dict(compare(request, program, PROGRAM))
    return _described(request, folder, {"torch": version("torch")}, found)


def onnx(request: Request, folder: Path) -> dict[str, Any]:
    """The model as ONNX: input `images`, an output for each task."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"format=onnx needs {', '.join(missing)}: pip install 'mtrun[onnx]'")
    path, weights = folder / ONNX, request.built.model.parameters()
    with _quiet():
        torch.onnx.export(
            _program(request),
            (request.images(BATCHES[1]),),
            path,
            input_names=["images"],
            output_names=list(request.tasks),
            external_data=sum(x.numel() * x.element_size() for x in weights) > LARGEST_ONNX,
            optimize=False,  # onnxruntime does that when it reads the file, in a fraction of the time
            dynamo=True,
            verbose=False,
        )
    found = dict(compare(request, _session(path), ONNX)) if request.verify else {}
    return _described(request, folder, {name: version(name) for name in ("torch", *NEEDED)}, found)


def _program(request: Request) -> ExportedProgram:
    """The model traced with a symbolic batch."""
    try:
        with torch.no_grad():
            return torch.export.export(
                request.built.model, (request.images(BATCHES[1]),), dynamic_shapes={"images": {0: Dim("batch")}}
            )
    except Exception as error:
        spec = request.built.spec
        raise CheckpointError(
            f"adapter {spec.adapter.name} on {spec.backbone.name} cannot be traced by torch.export: "
            f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        ) from error


def _session(path: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Mapping[str, Tensor]:
        found = session.run(names, {"images": images.numpy()})
        return {name: torch.from_numpy(x) for name, x in zip(names, found, strict=True)}

    return run


def _described(
    request: Request, folder: Path, versions: Mapping[str, str], found: Mapping[str, dict[str, float]]
) -> dict[str, Any]:
    """Write beside the program what it takes and gives."""
    model, spec = request.built.model, request.built.spec
    height, width = spec.image_size
    value = {
        "input": {"images": f"float32 (batch, 3, {height}, {width}), RGB in [0, 1]"},
        "outputs": {
            task: {"logits": f"float32 (batch, {model.tasks[task].channels}, {height}, {width})",
                   "task": model.tasks[task].to_json()}
            for task in request.tasks
        },
        "adapter": spec.adapter.name,
        "backbone": spec.backbone.name,
        "base_sha256": request.built.base,
        "versions": dict(versions),
        "difference": dict(found),
        "batches": list(BATCHES) if found else [],
    }  # fmt: skip
    write_json(folder / DESCRIPTION, value)
    return {"difference": dict(found), "batches": value["batches"]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own insides, and count them."""
    talkers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch")]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for talker in talkers:
            talker.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)
