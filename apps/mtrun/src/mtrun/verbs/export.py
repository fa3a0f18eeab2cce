"""`mtrun export`: a trained model in another form, in a new folder that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt_core.artefact import find, load_artefact
from mt_core.errors import ConfigError
from mt_core.files import new_folder

from ..config import ExportConfig, ExportFormat
from ..exports import Format, Request
from ..exports.programs import onnx, torch_export
from ..exports.weights import artifact, merged
from ..job import select_tasks
from ..json_values import plain_numbers
from ..results import Result
from ..runs import run_of

FORMATS: dict[ExportFormat, Format] = {
    ExportFormat.artifact: artifact,
    ExportFormat.merged: merged,
    ExportFormat.torch_export: torch_export,
    ExportFormat.onnx: onnx,
}


def export(config: ExportConfig, plain: Mapping[str, Any]) -> Result:
    """Write the model, on the CPU, and compare what was written with it."""
    folder = _output(config)
    artefact = find(Path(config.checkpoint))
    built = load_artefact(artefact, "cpu", config.base_checkpoint)
    built.model.select(select_tasks(built.model.tasks, config.tasks, str(artefact)))
    request = Request(artefact, built, config.layout, config.verify)
    try:
        with new_folder(folder) as temporary:
            found = FORMATS[config.format](request, temporary)
    except OSError as error:
        raise ConfigError(
            f"output={folder} cannot be written: {error.strerror or error}; choose another output"
        ) from error
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    value = {
        "checkpoint": str(artefact),
        "format": config.format.name,
        "output": str(folder),
        "tasks": list(request.tasks),
        "files": files,
        "verified": config.verify,
        **found,
    }
    return Result(plain_numbers(value), lambda console: _show(console, value, found))


def _output(config: ExportConfig) -> Path:
    """Where to write: as told, or beside the run, or here."""
    usual = (run_of(config.checkpoint) or Path()) / f"export-{config.format.name.replace('_', '-')}"
    folder = usual if config.output is None else Path(config.output)
    if os.path.lexists(folder):
        raise ConfigError(f"output={folder} exists already; an export is written into a new folder")
    return folder


def _show(console: Any, value: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    measured = found.get("difference") or {task: item["difference"] for task, item in found.get("tasks", {}).items()}
    for task, difference in measured.items():
        console.print(f"{task}: differs from the model by {difference['absolute']:.1e} at most", highlight=False)
    console.print(f"written to {value['output']}: {', '.join(value['files'])}", soft_wrap=True, highlight=False)
