"""What the tests of core share: the toys as if they were installed, and property tests that are the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from mt_core import builtin, discovery
from mt_core.artefact import save
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.discovery import load
from mt_core.hookspecs import hookimpl
from mt_core.tasks import Depth, Segmentation
from mt_core.testing.miniatures import randomise

from .toys import ToyBackbone, ToyDataset, ToyDecoder, ToyLoRA

settings.register_profile("steady", deadline=None, derandomize=True)  # a busy machine does not fail them
settings.load_profile("steady")


class Toys:
    """The toys as a plugin."""

    @hookimpl
    def mt_backbones(self) -> dict[str, type]:
        return {"toy": ToyBackbone}

    @hookimpl
    def mt_adapters(self) -> dict[str, type]:
        return {"toy_lora": ToyLoRA}

    @hookimpl
    def mt_decoders(self) -> dict[str, type]:
        return {"toy": ToyDecoder}

    @hookimpl
    def mt_datasets(self) -> dict[str, type]:
        return {"toy": ToyDataset}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed are core's own plugin and the toys, and nothing else."""
    plugins = load(entry_points=False)
    plugins.manager.register(builtin, "core")
    plugins.manager.register(Toys(), "toys")
    monkeypatch.setattr(discovery, "plugins", lambda: plugins)


@pytest.fixture
def spec(toys: None) -> ModelSpec:
    """A model of toys for two tasks."""
    return ModelSpec(
        backbone=Entry("toy"),
        adapter=Entry("toy_lora", {"rank": 3}),
        decoder=Entry("toy"),
        tasks=(Segmentation("semseg", 4).to_json(), Depth("depth").to_json()),
        image_size=(16, 24),
        seed=5,
    )


@pytest.fixture
def built(spec: ModelSpec) -> Built:
    """A model that was trained."""
    built = build(spec)
    randomise([p for p in built.model.parameters() if p.requires_grad], 0.1)
    built.model.eval()
    return built


@pytest.fixture
def folder(built: Built, tmp_path: Path) -> Path:
    """Its artefact."""
    save(tmp_path / "artefact", built)
    return tmp_path / "artefact"
