"""Sharing trained models: an artefact in a folder, or in a repository of the Hugging Face hub.

    model = mt_core.load("runs/mtlora")
    model.save_pretrained("depth-model")
    model.push_to_hub("me/depth-model")
    model = mt_core.from_pretrained("me/depth-model")

The hub needs `pip install mt-core[hub]`; it is imported when it is used. Only the three files of an artefact go up or
come down, and what comes down is checked like any other artefact: it holds names, numbers and sums, and nothing runs.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from .artefact import CONFIG, MANIFEST, WEIGHTS, find, load_artefact, save, trained_state
from .build import Built
from .errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from .model import MultiTaskModel

FILES = (CONFIG, WEIGHTS, MANIFEST)

_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a repository on the hub


def save_pretrained(model: MultiTaskModel, folder: str | Path) -> None:
    """Write the artefact of a model into a new folder: what was trained, in float32, and never a frozen weight.

    Raises:
        ConfigError: if the model was put together by hand, so that nothing says what it is.
        CheckpointError: if there is something in the folder already.
    """
    if model.origin is None:
        raise ConfigError(
            "this model was put together by hand, and an artefact needs its description; "
            "build it with mt_core.build.build(spec)"
        )
    built = Built(model, model.origin.spec, model.origin.base, model.origin.random)
    state = {name: x.float() if x.is_floating_point() else x for name, x in trained_state(model).items()}
    save(Path(folder), built, state)


def from_pretrained(
    name: str | Path, device: str | torch.device = "cpu", *, checkpoint: str = "", revision: str | None = None
) -> MultiTaskModel:
    """The trained model in a folder (an artefact or a run), or in a repository of the hub, ready to predict.

    Args:
        name: a folder, or OWNER/NAME where there is no such folder.
        device: where to.
        checkpoint: the file of the backbone's pretrained weights, where it is no longer where it was.
        revision: of the repository: a branch, a tag or a commit.

    Raises:
        CheckpointError: if there is neither, or the artefact is damaged or was trained on another base.
        ConfigError: if the hub or a plugin is needed and not installed.
    """
    folder = find(Path(name)) if Path(name).exists() else _fetch(str(name), revision)
    return load_artefact(folder, device, checkpoint).model


def push_to_hub(model: MultiTaskModel, repo: str, *, private: bool = False) -> str:
    """Put the artefact of a model into a repository of the hub, which is made if there is none.

    Args:
        model: what `mt_core.load` or `build` gave.
        repo: OWNER/NAME.
        private: whether a repository that is made now is private.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: if huggingface_hub is not installed, `repo` is no name, or the model was put together by hand.
        CheckpointError: if the hub refuses.
    """
    hub = _hub()
    _check_name(repo)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        try:
            hub.create_repo(repo, private=private, exist_ok=True)
            commit = hub.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(FILES))
        except Exception as error:  # of the network, of the hub, of the token
            raise CheckpointError(f"{repo} cannot be pushed to the hub: {_first_line(error)}") from error
    return str(commit)


def _fetch(name: str, revision: str | None) -> Path:
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"{name}: no such folder, and not OWNER/NAME as on the hub")
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:
        raise CheckpointError(
            f"{name}: no such folder here, and it cannot be fetched from the hub: {_first_line(error)}"
        ) from error


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError("the hub needs huggingface_hub: pip install 'mt-core[hub]'") from error
    return huggingface_hub


def _check_name(repo: str) -> None:
    if not _NAME.fullmatch(repo):
        raise ConfigError(f"repository {repo!r}: expected OWNER/NAME")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
