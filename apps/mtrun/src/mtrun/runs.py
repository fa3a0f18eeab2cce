"""Folders of runs: making a new one that is nobody else's, and finding the one that a checkpoint belongs to."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mt_core.artefact import read_json
from mt_core.errors import CheckpointError, ConfigError

from .config import TrainConfig
from .untrusted import check_yaml

CONFIG, METRICS, RESULT, LOG = "config.yaml", "metrics.jsonl", "result.json", "log.txt"
ARTEFACTS, STATE = "artefacts", "state"


def claim(run_dir: str | None, name: str) -> Path:
    """Make the folder of a new run; two runs never get the same.

    Args:
        run_dir: where the user wants it; None for `runs/NAME-TIME`.

    Raises:
        ConfigError: if there is a run in it already, or it cannot be made.
    """
    if run_dir is not None:
        return _claim(Path(run_dir))
    stem = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = stem, 1
    while True:
        try:
            return _claim(folder)
        except _TakenError:
            number += 1
            folder = stem.with_name(f"{stem.name}-{number}")


def refuse_taken(run_dir: str | None) -> None:
    """Look, without touching anything, whether a run may be written there. Raises ConfigError."""
    if run_dir is not None and any((Path(run_dir) / name).exists() for name in (CONFIG, LOG)):
        raise _TakenError(f"run_dir={run_dir} holds a run already; choose another folder or remove that one")


class _TakenError(ConfigError):
    """The folder belongs to another run."""


def _claim(folder: Path) -> Path:
    """The log is made first, and by one run only: whoever makes it owns the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_taken(str(folder))
        (folder / LOG).open("x").close()
    except FileExistsError as error:
        raise _TakenError(f"run_dir={folder} was just taken by another run, or is a file; choose another") from error
    except OSError as error:
        raise ConfigError(f"run_dir={folder} cannot be made: {error.strerror}; choose another folder") from error
    return folder


def run_of(checkpoint: str) -> Path | None:
    """The folder of the run that a checkpoint (a run's folder, or an artefact in one) belongs to."""
    path = Path(checkpoint)
    return next((folder for folder in (path, path.parent.parent) if (folder / CONFIG).is_file()), None)


def read_config(checkpoint: str) -> dict[str, Any]:
    """The configuration of the run that a checkpoint belongs to; empty where there is none.

    Raises:
        CheckpointError: if it cannot be read.
    """
    if not Path(checkpoint).is_dir():
        raise CheckpointError(f"checkpoint={checkpoint}: no such folder; expected a run's folder or an artefact")
    folder = run_of(checkpoint)
    if folder is None:
        return {}
    try:
        check_yaml(folder / CONFIG)
        values: Any = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except Exception as error:  # YAML fails in many ways
        raise CheckpointError(f"{folder / CONFIG} cannot be read: {error}") from error
    if "${" in str(values):
        raise CheckpointError(f"{folder / CONFIG}: a run writes values, not references as ${{...}}; restore it")
    if isinstance(values, dict):
        values.setdefault("balancer", {"name": "fixed"})  # older runs had no choice
    if not isinstance(values, dict) or not all(_is_choice(values.get(group)) for group in TrainConfig.groups):
        raise CheckpointError(f"{folder / CONFIG}: not a run's configuration; restore it, or name the artefact itself")
    return values


def config_to_resume(resume: str) -> dict[str, Any]:
    """The configuration of the run in a folder.

    Raises:
        CheckpointError: if there is no run in it, or its configuration cannot be read.
    """
    if not (Path(resume) / CONFIG).is_file():
        raise CheckpointError(f"resume={resume}: no run there, it has no {CONFIG}; expected the folder of a run")
    return read_config(resume)


def read_result(folder: Path) -> dict[str, Any]:
    """What came out of the run in a folder.

    Raises:
        CheckpointError: if it cannot be read.
    """
    found = read_json(folder / RESULT)
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder / RESULT} holds no result; remove it to have it made again")
    return found


def _is_choice(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)
