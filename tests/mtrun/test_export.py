"""`mtrun export`: what others load, checked after writing, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import segment_anything.modeling
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from mt_core.artefact import load, load_artefact, save
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.tasks import Depth, Segmentation
from mt_core.testing.miniatures import randomise
from mtrun import exports

from .conftest import Mtrun

TASKS = (Segmentation("semseg", 3), Depth("depth"))
NORM: Any = partial(torch.nn.LayerNorm, eps=1e-6)  # SAM's
TORA = Entry("tora", {"ranks": [4, 4, 2], "init_scale": 0.1})


def spec_of(backbone: str, size: tuple[int, int], adapter: Entry = TORA, **options: Any) -> ModelSpec:
    decoder = Entry("hrnet", {"widths": [4, 4, 4, 4]})
    return ModelSpec(Entry(backbone, options), adapter, decoder, tuple(task.to_json() for task in TASKS), size)


def artefact(folder: Path, spec: ModelSpec) -> Built:
    """An artefact of a model as if it was trained."""
    built = build(spec)
    randomise([p for p in built.model.parameters() if p.requires_grad], 0.05)
    save(folder, built)
    return load_artefact(folder)


@pytest.fixture
def swin(tmp_path: Path) -> Built:
    return artefact(tmp_path / "artefact", spec_of("swin_nano", (64, 96), features="before_merging"))


def features(built: Built, images: Tensor, task: str) -> list[Tensor]:
    model = built.model
    with torch.no_grad():
        return model.attachment.features(model.encoder((images - model.mean) / model.std))[task]


def test_an_artefact_is_copied_whole(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    outcome = mtrun("export", f"checkpoint={trained}", "output=copy", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["files"] == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    images = torch.rand(1, 3, 32, 40)
    copied, original = load(tmp_path / "copy")(images), load(trained)(images)
    assert all(torch.equal(copied[task], original[task]) for task in original)
    assert "written to again" in mtrun("export", f"checkpoint={trained}", "output=again").out


def test_merged_swin_is_timms(mtrun: Mtrun, swin: Built, tmp_path: Path) -> None:
    outcome = mtrun("export", "checkpoint=artefact", "format=merged", "output=out", "--json")
    assert outcome.code == 0, outcome.err
    images = torch.rand(2, 3, 64, 96)
    for task in ("semseg", "depth"):
        plain = timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=(64, 96), embed_dim=32, depths=(2, 2, 2, 2),
            num_heads=(2, 4, 8, 16), num_classes=0,
        ).eval()  # fmt: skip
        plain.prune_intermediate_layers(3, prune_norm=True)  # the final norm, which no level of features has seen
        plain.load_state_dict(load_file(tmp_path / "out" / task / "encoder.safetensors"), strict=True)
        about = json.loads((tmp_path / "out" / task / "task.json").read_text())
        mean, std = (torch.tensor(about[name]).view(3, 1, 1) for name in ("mean", "std"))
        with torch.no_grad():
            found = plain.forward_intermediates((images - mean) / std, intermediates_only=True)
        for level, expected in zip(found, features(swin, images, task), strict=True):
            torch.testing.assert_close(level, expected, atol=1e-4, rtol=1e-4)
        assert about["difference"] == outcome.json["tasks"][task]["difference"]
        assert 0 < about["difference"]["absolute"] < 1e-4
        assert about["largest_change"] > 1e-3
        decoder = load_file(tmp_path / "out" / task / "decoder.safetensors")
        swin.model.decoders[task].load_state_dict(decoder, strict=True)


def test_merged_sam_is_timms_and_segment_anythings(mtrun: Mtrun, tmp_path: Path) -> None:
    built, images = artefact(tmp_path / "artefact", spec_of("sam_vit_nano", (256, 256))), torch.rand(1, 3, 256, 256)
    for layout in ("original", "segment_anything"):
        outcome = mtrun(
            "export", "checkpoint=artefact", "format=merged", f"output={layout}", "tasks=[depth]", f"layout={layout}"
        )
        assert outcome.code == 0, outcome.err
        assert [path.name for path in (tmp_path / layout).iterdir()] == ["depth"]
        assert "depth: differs from the model by" in outcome.out
    own = timm.create_model(
        "samvit_base_patch16", num_classes=0, img_size=256, embed_dim=64, depth=8, num_heads=4, window_size=7,
        global_attn_indexes=(1, 3, 5, 7), norm_layer=NORM,
    ).eval()  # fmt: skip
    sams = segment_anything.modeling.ImageEncoderViT(
        img_size=256, embed_dim=64, depth=8, num_heads=4, window_size=7, global_attn_indexes=(1, 3, 5, 7),
        use_rel_pos=True, qkv_bias=True, out_chans=256,
        norm_layer=NORM,
    ).eval()  # fmt: skip
    own.load_state_dict(load_file(tmp_path / "original/depth/encoder.safetensors"), strict=True)
    sams.load_state_dict(load_file(tmp_path / "segment_anything/depth/encoder.safetensors"), strict=True)
    (expected,) = features(built, images, "depth")
    normal = (images - built.model.mean) / built.model.std
    with torch.no_grad():
        torch.testing.assert_close(own.forward_features(normal), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(sams(normal), expected, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_merged_says_where_and_why(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    outcome = mtrun("export", f"checkpoint={trained}", "format=merged", "output=out")
    assert outcome.code == 2
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("mtrun: error: ")]
    assert "adapter mtlora cannot be merged into plain weights." in line
    assert "of 32 sites (layers.0.blocks.1.attn." in line
    assert "Export it whole: format=torch_export or format=onnx" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tasks=[depth]",), "format=artifact copies an artefact whole; leave tasks away"),
        (("tasks=[flow]",), "unknown task 'flow'"),
        (("format=merged", "layout=detectron"), "layout=detectron: backbone swin_nano has original"),
        (("format=pickle",), "format: Invalid value 'pickle', expected one of [artifact, merged, torch_export, onnx]"),
        (("output=taken",), "output=taken exists already; an export is written into a new folder"),
        (("output=link",), "output=link exists already"),
        (("output=file/out",), "output=file/out cannot be written: File exists; choose another output"),
    ],
)
def test_what_cannot_be_exported_ends_with_2(
    mtrun: Mtrun, swin: Built, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    outcome = mtrun("export", "checkpoint=artefact", "output=out", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


def test_onnx_says_what_to_install(mtrun: Mtrun, swin: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mtrun.exports.programs.find_spec", lambda name: None)
    outcome = mtrun("export", "checkpoint=artefact", "format=onnx", "output=out")
    assert outcome.code == 2
    assert "format=onnx needs onnx, onnxscript, onnxruntime: pip install 'mtrun[onnx]'" in outcome.err
    assert not (tmp_path / "out").exists()


def test_what_differs_from_the_model_is_not_left_behind(
    mtrun: Mtrun, swin: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "TOLERANCE", -1.0)
    words = ("export", "checkpoint=artefact", "format=merged", "output=out")
    outcome = mtrun(*words)
    assert outcome.code == 4
    assert "task semseg: what was exported differs from the model by" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]
    outcome = mtrun(*words, "verify=false", "--json")  # which measures all the same
    assert outcome.code == 0, outcome.err
    assert outcome.json["tasks"]["depth"]["difference"]["absolute"] > 0


def test_nan_is_a_difference() -> None:
    found = exports.difference((torch.tensor([torch.nan]),), (torch.ones(1),))
    with pytest.raises(exports.CheckpointError, match="what was exported differs from the model by nan"):
        exports.refuse_large(found, "x")
    assert exports.difference((torch.ones(2),), (torch.ones(1),))["absolute"] == float("inf")


def test_a_disk_that_lies_is_found_out(
    mtrun: Mtrun, swin: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count()
    monkeypatch.setattr("mtrun.exports.weights.state_hash", lambda state: next(numbers))
    outcome = mtrun("export", "checkpoint=artefact", "format=merged", "output=out")
    assert outcome.code == 4
    assert "what was read back is not what was written; is the disk full?" in outcome.err
    assert not (tmp_path / "out").exists()


def test_what_torch_cannot_trace_says_why(
    mtrun: Mtrun, swin: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a loop over data\nand much more")

    monkeypatch.setattr(torch.export, "export", refuse)
    outcome = mtrun("export", "checkpoint=artefact", "format=torch_export", "output=out")
    assert outcome.code == 4
    assert "adapter tora on swin_nano cannot be traced by torch.export: RuntimeError: a loop over data" in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_usual_place_is_beside_the_run(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    assert mtrun("export", "checkpoint=run").code == 0
    assert (tmp_path / "run" / "export-artifact" / "manifest.json").is_file()
    assert "exists already" in mtrun("export", "checkpoint=run").err


@pytest.mark.slow
def test_the_whole_model_as_a_program_of_torch_for_any_batch(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    outcome = mtrun(
        "export", f"checkpoint={trained}", "format=torch_export", "output=out", "tasks=[semseg,depth]", "--json"
    )
    assert outcome.code == 0, outcome.err
    program, model = torch.export.load(tmp_path / "out" / "model.pt2").module(), load(trained)
    for size in (1, 4):
        images = torch.rand(size, 3, 32, 40)
        with torch.no_grad():
            expected = {name: x for name, x in model(images).items() if name in ("semseg", "depth")}
            torch.testing.assert_close(program(images), expected, atol=1e-4, rtol=1e-4)
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["input"] == {"images": "float32 (batch, 3, 32, 40), RGB in [0, 1]"}
    assert list(about["outputs"]) == ["semseg", "depth"]
    assert about["batches"] == [1, 2, 3]


@pytest.mark.slow
def test_the_whole_model_as_onnx_for_any_batch(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    outcome = mtrun("export", f"checkpoint={trained}", "format=onnx", "output=out", "tasks=[depth,normals]", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["files"] == ["model.json", "model.onnx"]
    assert all(found["relative"] < 1e-4 for found in outcome.json["difference"].values())
    session, model = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx"), load(trained)
    assert [output.name for output in session.get_outputs()] == ["depth", "normals"]
    images = torch.rand(5, 3, 32, 40)
    depth, normals = session.run(["depth", "normals"], {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(torch.from_numpy(depth), expected["depth"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(normals), expected["normals"], atol=1e-4, rtol=1e-4)


def test_exporting_needs_no_onnx_until_it_is_asked_for() -> None:
    code = "import sys, mtrun.verbs.export; assert not {'onnx', 'onnxscript', 'onnxruntime'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
