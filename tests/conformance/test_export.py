"""Every adapter: how large its artefact is, whether it merges, and that the whole model runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mt_core import registry
from mt_core.artefact import load_artefact, save, trained_state
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.errors import ConfigError, MergeError
from mt_core.merging import obstacles
from mt_core.model import MultiTaskModel
from mt_core.tasks import Depth, Segmentation
from mt_core.testing.miniatures import architectures, randomise
from mtrun.exports import BATCHES, TOLERANCE, Request
from mtrun.exports.programs import onnx, torch_export
from mtrun.exports.weights import merged

TASKS = (Segmentation("semseg", 3), Depth("depth"))
ROOM = 64 * 1024  # bytes that an artefact may have beside its numbers


def spec_of(adapter: str, size: tuple[int, int] = (64, 64)) -> ModelSpec:
    decoder = Entry("hrnet", {"widths": [4, 4, 4, 4]})
    return ModelSpec(Entry("swin_nano"), Entry(adapter), decoder, tuple(task.to_json() for task in TASKS), size)


def request_of(adapter: str, backbone: str, decoder: str) -> Request:
    """A miniature as if it was trained, to be exported."""
    torch.manual_seed(0)
    encoder, images = architectures()[backbone].miniature()
    model = MultiTaskModel(encoder, registry("adapters")[adapter](), registry("decoders")[decoder](), TASKS).eval()
    randomise([p for p in model.parameters() if p.requires_grad], 0.01)
    height, width = images.shape[-2:]
    return Request(Path(), Built(model, spec_of(adapter, (height, width)), "", random=True), "original", verify=True)


@pytest.mark.parametrize("adapter", registry("adapters"))
def test_an_artefact_is_hardly_larger_than_what_is_trained(adapter: str, tmp_path: Path) -> None:
    built = build(spec_of(adapter))
    save(tmp_path / "artefact", built)
    trainable = sum(p.numel() * p.element_size() for p in built.model.parameters() if p.requires_grad)
    assert trainable > 0
    assert sum(path.stat().st_size for path in (tmp_path / "artefact").iterdir()) <= trainable + ROOM
    again = trained_state(load_artefact(tmp_path / "artefact").model)
    assert all(torch.equal(x, again[name]) for name, x in trained_state(built.model).items())


@pytest.mark.parametrize("backbone", architectures())
@pytest.mark.parametrize("adapter", registry("adapters"))
def test_every_task_merges_with_its_difference_stated_or_it_says_why_not(
    adapter: str, backbone: str, tmp_path: Path
) -> None:
    try:
        request = request_of(adapter, backbone, "hrnet")
    except ConfigError as error:
        pytest.skip(f"they cannot be combined: {error}")
    attachment = request.built.model.attachment
    if any(obstacles(attachment, task) for task in request.tasks):
        with pytest.raises(MergeError, match=rf"^adapter {adapter} cannot be merged into plain weights\. .* sites \("):
            merged(request, tmp_path)
        assert list(tmp_path.iterdir()) == []
        return
    found = merged(request, tmp_path)
    assert found["tasks"].keys() == {"semseg", "depth"}
    assert all(0 <= item["difference"]["relative"] <= TOLERANCE for item in found["tasks"].values())


def exported() -> Iterator[Any]:
    """Every adapter on Swin and SAM, half a minute each; unless MT_EXHAUSTIVE=1 asks for all, one on SAM.

    What mtrun exports in its own tests is MTLoRA on Swin.
    """
    few = {("tora", "sam_vit_b")}
    everything = os.environ.get("MT_EXHAUSTIVE") == "1"
    skipped = pytest.mark.skipif(not everything, reason="set MT_EXHAUSTIVE=1 to export every adapter (half an hour)")
    for adapter in registry("adapters"):
        for backbone, decoder in (("swin_base", "hrnet"), ("sam_vit_b", "sam_mask")):
            yield pytest.param(adapter, backbone, decoder, marks=[] if (adapter, backbone) in few else [skipped])


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "backbone", "decoder"), list(exported()))
def test_the_whole_model_runs_in_onnxruntime_and_as_a_program_of_torch(
    adapter: str, backbone: str, decoder: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    try:
        request = request_of(adapter, backbone, decoder)
    except ConfigError as error:
        pytest.skip(f"they cannot be combined: {error}")
    for export in (torch_export, onnx):
        found = export(request, tmp_path)
        assert found["batches"] == list(BATCHES)
        assert all(item["relative"] <= TOLERANCE for item in found["difference"].values())
