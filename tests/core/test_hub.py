"""Sharing a trained model: a folder, and a hub that is a folder here."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

import mt_core
from mt_core import MultiTaskModel
from mt_core.artefact import CONFIG, MANIFEST, WEIGHTS, find, load, trained_state
from mt_core.build import Built
from mt_core.errors import CheckpointError, ConfigError
from mt_core.tasks import Depth

from .toys import ToyDecoder, ToyEncoder, ToyLoRA

IMAGES = torch.rand(2, 3, 16, 24)
FILES = {CONFIG, WEIGHTS, MANIFEST}


class Hub(ModuleType):
    """What `mt_core.hub` uses of huggingface_hub, with repositories that are folders."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root, self.private = root, dict[str, bool]()

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo_id, private)
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        (self.root / repo_id / ".gitattributes").write_text("as the hub adds by itself")

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: Sequence[str]) -> str:
        for name in allow_patterns:
            shutil.copy(Path(folder_path, name), self.root / repo_id / name)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: Sequence[str]) -> str:
        if not (self.root / repo_id).is_dir():
            raise FileNotFoundError(f"404: {repo_id}\nand much more about it")
        target = self.root / "cache" / repo_id / str(revision)
        target.mkdir(parents=True)
        for name in allow_patterns:
            (target / name).symlink_to(self.root / repo_id / name)  # as in the hub's cache
        return str(target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    return hub


def same(one: MultiTaskModel, other: MultiTaskModel) -> bool:
    with torch.no_grad():
        return all(torch.equal(x, other(IMAGES)[task]) for task, x in one(IMAGES).items())


def test_a_loaded_model_gives_logits_by_task_for_pixels_in_0_1(built: Built, folder: Path) -> None:
    model = mt_core.load(folder)
    assert model(IMAGES)["depth"].shape == (2, 1, 16, 24)
    assert model(IMAGES)["semseg"].shape == (2, 4, 16, 24)
    assert same(model, built.model)


def test_what_is_saved_is_what_comes_back(built: Built, folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES
    again = MultiTaskModel.from_pretrained(tmp_path / "again")
    assert same(again, built.model)
    assert again.origin == built.model.origin
    assert same(mt_core.from_pretrained(str(tmp_path / "again")), built.model)


def test_a_run_is_a_name_too(built: Built, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "artefacts").mkdir(parents=True)
    folder.rename(tmp_path / "run" / "artefacts" / "last-000004")
    assert find(tmp_path / "run").name == "last-000004"
    assert same(MultiTaskModel.from_pretrained(tmp_path / "run"), built.model)


def test_a_model_in_half_precision_is_saved_in_the_usual_one(built: Built, tmp_path: Path) -> None:
    built.model.bfloat16().save_pretrained(tmp_path / "again")
    again, expected = trained_state(load(tmp_path / "again")), trained_state(built.model)
    assert all(torch.equal(x, expected[name].float()) for name, x in again.items())


def test_a_model_that_trained_on_is_saved_as_it_is_now(built: Built, folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    with torch.no_grad():
        model.decoders["depth"].classify.bias.add_(1)  # type: ignore[union-attr, operator]
    model.save_pretrained(tmp_path / "later")
    assert same(load(tmp_path / "later"), model)
    assert not same(model, built.model)


def test_a_folder_with_something_in_it_is_not_written_to(built: Built, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="an artefact is written into a new folder"):
        built.model.save_pretrained(tmp_path)


def test_a_model_that_was_put_together_by_hand_says_what_is_missing(tmp_path: Path) -> None:
    model = MultiTaskModel(ToyEncoder(), ToyLoRA(), ToyDecoder(), [Depth("depth")])
    with pytest.raises(ConfigError, match=r"was put together by hand, .* build it with mt_core.build.build"):
        model.save_pretrained(tmp_path / "artefact")
    assert not (tmp_path / "artefact").exists()


def test_up_to_the_hub_and_down_again(built: Built, hub: Hub) -> None:
    assert built.model.push_to_hub("me/depth-model", private=True) == "https://hub/me/depth-model/commit/1"
    assert hub.private == {"me/depth-model": True}
    assert {path.name for path in (hub.root / "me/depth-model").iterdir()} == {*FILES, ".gitattributes"}
    again = MultiTaskModel.from_pretrained("me/depth-model", revision="main")
    assert same(again, built.model)


def test_what_comes_down_is_checked_like_any_artefact(built: Built, hub: Hub) -> None:
    built.model.push_to_hub("me/model")
    path = hub.root / "me/model" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} is damaged"):
        mt_core.from_pretrained("me/model")


def test_a_folder_goes_before_the_hub(folder: Path, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "me").mkdir()
    folder.rename(tmp_path / "me" / "model")
    assert mt_core.from_pretrained("me/model").tasks.keys() == {"semseg", "depth"}
    assert not hub.root.exists()


def test_neither_a_folder_nor_a_repository(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"no such folder here, and it cannot be fetched .*404: me/nothing$"):
        mt_core.from_pretrained("me/nothing")
    with pytest.raises(CheckpointError, match=r"nothing: no such folder, and not OWNER/NAME as on the hub"):
        mt_core.from_pretrained("nothing")


def test_load_never_asks_the_hub(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="no artefact there"):
        load("me/model")


def test_what_the_hub_refuses_is_said_in_one_line(built: Built, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("401: no token\nread the docs")

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(CheckpointError, match=r"me/model cannot be pushed to the hub: PermissionError: 401: no token$"):
        built.model.push_to_hub("me/model")
    with pytest.raises(ConfigError, match="repository 'model': expected OWNER/NAME"):
        built.model.push_to_hub("model")


def test_without_the_hub_it_says_what_to_install(built: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    for call in (lambda: built.model.push_to_hub("me/model"), lambda: mt_core.from_pretrained("me/model")):
        with pytest.raises(ConfigError, match=r"the hub needs huggingface_hub: pip install 'mt-core\[hub\]'"):
            call()
