"""`mtrun doctor`: what is here, and whether it works."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mt_core.backbone import Backbone
from mt_core.dataset import Batch
from mt_core.decoder import Decoder
from mt_core.discovery import KINDS, Registry, load, plugins, registry
from mt_core.errors import ConfigError, MTError, PluginError
from mt_core.model import MultiTaskModel, Objective
from mt_core.tasks import Depth, Segmentation

from .. import __version__
from ..balancers.fixed import Fixed
from ..config import TrainConfig
from ..engine import ENGINES, Engine
from ..ranks import ALONE
from ..recipe import TrainerOptions
from ..results import Result

NEEDED = ("torch", "torchvision", "torchmetrics", "hydra-core", "omegaconf", "pluggy", "safetensors", "numpy")
OPTIONAL = {
    "onnx": "mtrun[onnx]",
    "onnxscript": "mtrun[onnx]",
    "onnxruntime": "mtrun[onnx]",
    "deepspeed": "mtrun[deepspeed]",
    "torchjd": "mtrun[balancers]",
    "cvxpy": "mtrun[balancers]",
    "huggingface-hub": "mt-core[hub]",
}


@dataclass(frozen=True)
class Problem:
    """Something that does not work, and what a command that needs it would end with."""

    message: str
    exit_code: int


def doctor(words: Sequence[str]) -> Result:
    """Look at everything. The exit code is that of the first problem."""
    if words:
        raise ConfigError(f"mtrun doctor {' '.join(words)}: it takes no options, only --json")
    problems, steps = [*_plugins(), *_folders()], dict[str, dict[str, Any]]()
    for device in _devices():
        try:
            steps[device] = _step(torch.device(device))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the user wants to know
            code = error.exit_code if isinstance(error, MTError) else 1
            problems.append(Problem(f"a training step on {device} fails: {type(error).__name__}: {error}", code))
    value = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "dists": sorted({f"mtrun {__version__}", *plugins().sources.values()}),
        "needed": {name: _version(name) for name in NEEDED},
        "optional": {name: _version(name) for name in OPTIONAL},
        "devices": _devices(),
        "engines": {name: ENGINES.source(name) for name in ENGINES},
        "blocked": os.environ.get("MT_BLOCK", ""),
        "steps": steps,
        "problems": [problem.message for problem in problems],
    }
    return Result(value, lambda console: _show(console, value), problems[0].exit_code if problems else 0)


def _plugins() -> Iterator[Problem]:
    """Every plugin is loaded anew, and every class that it names is imported."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind in KINDS:
            try:
                names = registry(kind)
                found += [str(error) for name in names if (error := _error_of(names, name)) is not None]
            except PluginError as error:
                found.append(str(error))
        try:
            load()
        except PluginError as error:
            found.append(str(error))
    left_out = [str(warning.message) for warning in caught if "is left out" in str(warning.message)]
    yield from (Problem(message, PluginError.exit_code) for message in dict.fromkeys([*left_out, *found]))


def _error_of(names: Registry, name: str) -> PluginError | None:
    try:
        names[name]
    except PluginError as error:
        return error
    return None


def _folders() -> Iterator[Problem]:
    """Runs are written below the current folder, and Hydra wants a temporary one."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"mtrun")
        except OSError as error:
            yield Problem(f"{folder} cannot be written to: {error.strerror}; give run_dir=DIR", ConfigError.exit_code)


def _devices() -> dict[str, str]:
    """The devices that a run can be on, and what they are."""
    cuda = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads", **cuda}


def _step(device: torch.device) -> dict[str, Any]:
    """One step of mtrun's own engine, on a miniature of the usual backbone with the usual adapter."""
    backbones, adapters = registry("backbones"), registry("adapters")
    if not backbones:
        raise PluginError("no backbone is installed, so nothing can be trained: pip install mt-backbones-swin")
    backbone, adapter = (_usual(group, names) for group, names in (("backbone", backbones), ("adapter", adapters)))
    started, architecture = time.perf_counter(), cast(type[Backbone], backbones[backbone])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, images = architecture.miniature()
        tasks = Segmentation("semseg", 3), Depth("depth")
        decoder: Decoder = registry("decoders")["hrnet"]()
        model = MultiTaskModel(encoder, adapters[adapter](), decoder, tasks).to(device)
        before = {name: x.detach().clone() for name, x in model.named_parameters() if x.requires_grad}
        engine: Engine = ENGINES["torch"]()
        balancer = Fixed()
        balancer.start([task.name for task in tasks], 0, 1)
        engine.prepare(Objective(model, {}), TrainerOptions(), device, ALONE, balancer)
        result = engine.step(1, [_batch(images)], 1e-3)
    moved = sum(not torch.equal(x, before[name]) for name, x in model.named_parameters() if name in before)
    if not moved:
        raise PluginError(f"adapter {adapter} on {backbone}: no parameter has changed after a step")
    seconds = round(time.perf_counter() - started, 2)
    return {"backbone": backbone, "adapter": adapter, "losses": result.losses, "moved": moved, "seconds": seconds}


def _usual(group: str, names: Registry) -> str:
    """The default of a config group if it is installed, or else the first that is."""
    usual = TrainConfig.groups[group]
    return usual if usual is not None and usual in names else next(iter(names))


def _batch(images: Tensor) -> Batch:
    """Labels for the pictures: what is bright is near and of class 1."""
    bright = images.mean(1)  # (B, H, W)
    labels = {"semseg": (bright > 0.5).long(), "depth": 1 + bright.unsqueeze(1)}
    present = dict.fromkeys(labels, torch.ones(len(images), dtype=torch.bool))
    return Batch([f"noise-{i}" for i in range(len(images))], images, labels, present)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show(console: Any, value: dict[str, Any]) -> None:
    def line(head: str, text: str) -> None:
        console.print(f"{head:<10} {text}", soft_wrap=True, highlight=False, markup=False)

    line("python", f"{value['python']} ({value['executable']}) on {value['platform']}")
    line("installed", ", ".join(value["dists"]))
    line("with", ", ".join(f"{name} {found or 'MISSING'}" for name, found in value["needed"].items()))
    for name, found in value["optional"].items():
        line("optional", f"{name} {found}" if found else f"{name} is not here: pip install '{OPTIONAL[name]}'")
    for name, what in value["devices"].items():
        line("device", f"{name}: {what}")
    line("engines", ", ".join(value["engines"]))
    if value["blocked"]:
        line("blocked", f"MT_BLOCK={value['blocked']}")
    for device, step in value["steps"].items():
        line("step", f"{step['adapter']} on {step['backbone']} trains on {device}, in {step['seconds']} s")
    for problem in value["problems"]:
        line("PROBLEM", problem)
    line("", f"{len(value['problems'])} problems" if value["problems"] else "all is well")
