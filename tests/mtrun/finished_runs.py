"""Folders as finished runs leave them, written by hand: numbers that a test can know."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

RESULT: dict[str, Any] = {
    "protocol": "astmt",
    "dataset": "pascal",
    "adapter": "mtlora",
    "backbone": "swin_tiny",
    "decoder": "hrnet",
    "backbone_init": "pretrained",
    "tasks": {"semseg": 21, "normals": 3},
    "image_size": [448, 448],
    "images": 5105,
    "metrics": {
        "final": {"semseg": {"miou": 66.0, "pixel_accuracy": 88.0}, "normals": {"mean_angle": 17.0}},
        "best": {"semseg": {"miou": 68.0, "pixel_accuracy": 90.0}, "normals": {"mean_angle": 16.0}},
    },
    "directions": {
        "semseg": {"miou": "higher", "pixel_accuracy": "higher"},
        "normals": {"mean_angle": "lower"},
    },
    "parameters": {"trainable": 2_000_000, "live": 1_900_000, "total": 30_000_000},
    "gmacs": {"published": 20.0, "full": 25.0},
    "step_seconds": 0.5,
    "peak_memory_mib": {"host": 1000.0, "device": None},
    "seed": 0,
    "steps": 100,
    "environment": {"device_name": "x86_64"},
}
CONFIG: dict[str, Any] = {
    "adapter": {"name": "mtlora", "rank": 16},
    "backbone": {"name": "swin_tiny"},
    "decoder": {"name": "auto"},
    "dataset": {"name": "pascal", "root": "/data/pascal"},
    "engine": {"name": "torch"},
    "tasks": None,
    "seed": 0,
    "trainer": {"lr": 0.001, "eval_batches": None},
}


def finished(folder: Path, config: dict[str, Any] | None = None, **result: Any) -> Path:
    """Write a run. Nested dictionaries are merged into `CONFIG` and `RESULT`; the seed goes into both."""
    folder.mkdir(parents=True)
    given = {"seed": result["seed"]} if "seed" in result else {}
    composed = merged(CONFIG, {**(config or {}), **given})
    (folder / "config.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    (folder / "result.json").write_text(json.dumps(merged(RESULT, result)))
    return folder


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested dictionaries with others laid over it."""
    found = copy.deepcopy(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if nested else copy.deepcopy(value)
    return found


def only(task: str, **metrics: float) -> dict[str, Any]:
    """What of a result is different in a run of one task."""
    ways = {name: RESULT["directions"][task][name] for name in metrics}
    return {
        "tasks": {task: RESULT["tasks"][task]},
        "metrics": {"best": {task: metrics}, "final": {task: metrics}},
        "directions": {task: ways},
    }


def single(folder: Path, task: str, seed: int = 0, protocol: str = "astmt", **metrics: float) -> Path:
    """Write a run of one task."""
    run = finished(folder, {"adapter": {"name": "full"}, "tasks": [task]}, adapter="full", seed=seed, protocol=protocol)
    found = {**json.loads((run / "result.json").read_text()), **only(task, **metrics)}
    (run / "result.json").write_text(json.dumps(found))
    return run
