"""`mtrun predict`: every task for the user's pictures, at each picture's own size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from mt_core.artefact import find, load_artefact
from mt_core.build import Built
from mt_core.errors import ConfigError

from ..config import PredictConfig
from ..job import device_of, select_tasks
from ..pictures import find_pictures, read_picture
from ..predictions import encoding_of, encodings, write_colours
from ..results import Result
from ..runs import run_of
from ..stepping import autocast

log = logging.getLogger(__name__)


def predict(config: PredictConfig, plain: Mapping[str, Any]) -> Result:
    """Write FOLDER/TASK/PICTURE.png (values) and FOLDER/TASK/colour/PICTURE.png for every picture and task."""
    device = device_of(config.trainer.device)
    paths = find_pictures(config.input)
    artefact = find(Path(config.checkpoint))
    built = load_artefact(artefact, device, config.base_checkpoint)
    names = None if config.tasks is None else [entry.partition(":")[0] for entry in config.tasks]
    built.model.select(select_tasks(built.model.tasks, names, str(artefact)))
    if built.random:
        log.warning("the backbone of %s had no pretrained weights; do not expect much of its predictions", artefact)
    folder = _output(config)
    files: list[dict[str, str]] = []
    for path, predictions in _predictions(paths, built, config, device):
        if config.dry_run:
            continue
        files += _write(folder, path, predictions, built, config)
        log.info("%s: %s", path, ", ".join(predictions))
    value = {"checkpoint": str(artefact), "output": str(folder), "pictures": len(paths), "files": files}
    return Result(value, lambda console: _show(console, value))


def _predictions(
    paths: Sequence[Path], built: Built, config: PredictConfig, device: torch.device
) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """Every picture with its predictions, without a batch axis, at its own size, on the CPU."""
    model, queue = built.model, iter(paths)
    while chunk := list(islice(queue, config.trainer.batch_size)):
        pictures = [read_picture(path) for path in chunk]
        small = [V.resize(picture, list(built.spec.image_size), antialias=True) for picture in pictures]
        images = torch.stack(small).to(device).float() / 255  # (B, 3, H, W)
        with torch.inference_mode(), autocast(device, config.trainer.precision):
            logits = model(images)
            for i, (path, picture) in enumerate(zip(chunk, pictures, strict=True)):
                yield path, {name: _at_size(x[i : i + 1], picture, built, name) for name, x in logits.items()}


def _at_size(logits: Tensor, picture: Tensor, built: Built, task: str) -> Tensor:
    """The logits are enlarged, not the prediction: borders between classes stay smooth, normals keep unit length."""
    large = F.interpolate(logits.float(), size=picture.shape[-2:], mode="bilinear", align_corners=False)
    return built.model.tasks[task].predict(large)[0].cpu()


def _write(
    folder: Path, path: Path, predictions: Mapping[str, Tensor], built: Built, config: PredictConfig
) -> list[dict[str, str]]:
    known, files = encodings(config), []
    for name, values in predictions.items():
        task = built.model.tasks[name]
        encoding = encoding_of(task, known)
        files.append(
            {
                "picture": str(path),
                "task": name,
                "values": str(encoding.write(folder / name / path.stem, values)),
                "encoding": encoding.meaning,
                "colour": str(write_colours(folder / name / "colour" / path.stem, task, values)),
            }
        )
    return files


def _output(config: PredictConfig) -> Path:
    """Where to write: as told, or beside the run, or here."""
    if config.output is not None:
        folder = Path(config.output)
        if folder.is_file():
            raise ConfigError(f"output={folder} is a file; expected a folder")
        return folder
    folder = (run_of(config.checkpoint) or Path()) / "predictions"
    if link := next((path for path in (folder, *folder.rglob("*")) if path.is_symlink()), None):
        raise ConfigError(f"{link} is a link, and writing there could go anywhere; remove it, or give output=DIR")
    return folder


def _show(console: Any, value: Mapping[str, Any]) -> None:
    for name, meaning in {file["task"]: file["encoding"] for file in value["files"]}.items():
        console.print(f"{value['output']}/{name}: {meaning}", soft_wrap=True, highlight=False)
    console.print(f"{value['pictures']} pictures, {len(value['files'])} predictions", highlight=False)
