"""`mtrun predict`: files at each picture's own size, which say what they hold."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mt_core.artefact import load
from mt_core.labels import Label
from mt_core.task import Task
from mt_core.tasks import Depth, Segmentation
from mtrun.config import PredictConfig
from mtrun.pictures import read_picture
from mtrun.predictions import encoding_of, encodings, png16

from .conftest import Mtrun


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures of different size and format, and something else."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("wide.jpg", (50, 90)), ("high.png", (70, 33))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def decode16(data: bytes) -> NDArray[Any]:
    """A 16-bit RGB PNG of one IDAT and unfiltered rows."""
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    assert (bits, colour) == (16, 2)
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    rows = np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].copy().view(">u2").reshape(height, width, 3)


def test_predictions_have_the_size_of_their_picture(
    mtrun: Mtrun, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    outcome = mtrun("predict", f"checkpoint={trained}", f"input={pictures}", "output=out", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["pictures"] == 2
    assert len(outcome.json["files"]) == 8
    for task in ("semseg", "depth", "normals", "saliency"):
        for name, size in (("wide", (90, 50)), ("high", (33, 70))):
            for path in (tmp_path / "out" / task / f"{name}.png", tmp_path / "out" / task / "colour" / f"{name}.png"):
                with Image.open(path) as picture:
                    assert picture.size == size
    files = {path.as_posix() for path in Path("out").rglob("*") if path.is_file()}
    assert files == {file[key] for file in outcome.json["files"] for key in ("values", "colour")}


def test_the_files_hold_what_the_model_predicts(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    size = (32, 40)  # the model's own, so that nothing is resized
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    outcome = mtrun("predict", f"checkpoint={trained}", "input=one.png", "output=out", "--json")
    assert outcome.code == 0, outcome.err
    expected = load(trained).predict(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    out = tmp_path / "out"
    assert np.array_equal(np.array(Image.open(out / "semseg/one.png")), expected["semseg"][0].numpy())
    millimetres = np.array(Image.open(out / "depth/one.png"))
    assert millimetres.dtype == np.uint16
    assert np.abs(millimetres / 1000 - expected["depth"][0, 0].numpy()).max() < 1e-3
    normals = decode16((out / "normals/one.png").read_bytes()) / 32767.5 - 1
    assert np.abs(normals - expected["normals"][0].permute(1, 2, 0).numpy()).max() < 1e-4
    shares = np.array(Image.open(out / "saliency/one.png"))
    assert shares.dtype == np.uint8
    assert np.abs(shares / 255 - expected["saliency"][0, 0].numpy()).max() < 4e-3
    meaning = {file["task"]: file["encoding"] for file in outcome.json["files"]}
    assert "millimetres" in meaning["depth"]


def test_depth_and_normals_can_be_arrays(mtrun: Mtrun, trained: Path, pictures: Path, tmp_path: Path) -> None:
    outcome = mtrun(
        "predict", f"checkpoint={trained}", f"input={pictures / 'high.png'}", "output=out", "tasks=[normals,depth]",
        "depth.format=npy", "normals.format=npy",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "depth in metres" in outcome.out
    depth, normals = np.load(tmp_path / "out/depth/high.npy"), np.load(tmp_path / "out/normals/high.npy")
    assert (depth.shape, depth.dtype) == ((70, 33), np.float32)
    assert (normals.shape, normals.dtype) == ((70, 33, 3), np.float32)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["depth", "normals"]


def test_the_usual_place_is_beside_the_run_or_here(mtrun: Mtrun, trained: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(next((trained / "artefacts").glob("last-*")), tmp_path / "artefact")
    source = f"input={pictures / 'high.png'}"
    assert mtrun("predict", "checkpoint=run", source, "tasks=[depth]").code == 0
    assert (tmp_path / "run/predictions/depth/high.png").is_file()
    assert mtrun("predict", "checkpoint=artefact", source, "tasks=[depth]").code == 0
    assert (tmp_path / "predictions/depth/high.png").is_file()


def test_a_dry_run_predicts_and_writes_nothing(mtrun: Mtrun, trained: Path, pictures: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    outcome = mtrun("predict", f"checkpoint={trained}", f"input={pictures}", "output=out", "dry_run=true", "--json")
    assert outcome.json["files"] == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_is_seen_as_its_camera_was_held(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    seen = read_picture(tmp_path / "turned.png")
    assert seen.shape == (3, 3, 2)
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_every_mode_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    ending = ".tif" if mode == "CMYK" else ".png"
    Image.new(mode, (5, 4)).save(tmp_path / f"one{ending}")
    seen = read_picture(tmp_path / f"one{ending}")
    assert (seen.shape, seen.dtype) == ((3, 4, 5), torch.uint8)


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("", 2, "input is needed"),
        ("input=nowhere", 3, "input=nowhere: no such file or folder"),
        ("input=empty", 3, "input=empty: no picture in this folder"),
        ("input=damaged", 3, "damaged/cut.jpg: cannot be read as a picture"),
        ("input=notes.txt", 3, "notes.txt: cannot be read as a picture"),
        ("input=twins", 3, "twins/a.jpg and twins/a.png have the same name"),
        ("tasks=[flow]", 2, "unknown task 'flow'"),
        ("output=notes.txt", 2, "output=notes.txt is a file"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    mtrun: Mtrun, trained: Path, pictures: Path, tmp_path: Path, source: str, code: int, message: str
) -> None:
    for folder in ("empty", "damaged", "twins"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "damaged" / "cut.jpg").write_bytes((pictures / "wide.jpg").read_bytes()[:200])
    for name in ("a.png", "a.jpg"):
        shutil.copy(pictures / "high.png", tmp_path / "twins" / name)
    usual = [] if source.startswith("input") or not source else [f"input={pictures}"]
    outcome = mtrun("predict", f"checkpoint={trained}", *usual, *([source] if source else []))
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_more_than_256_classes_are_written_with_16_bits(tmp_path: Path) -> None:
    task = Segmentation("semseg", 3)
    encoding = encoding_of(task, encodings(PredictConfig()))
    path = encoding.write(tmp_path / "few", torch.tensor([[0, 255]]))
    assert np.array(Image.open(path)).dtype == np.uint8
    path = encoding.write(tmp_path / "many", torch.tensor([[0, 300]]))
    assert np.array(Image.open(path)).tolist() == [[0, 300]]


def test_depth_beyond_65_metres_is_clipped(tmp_path: Path) -> None:
    encoding = encoding_of(Depth("depth", 1), encodings(PredictConfig()))
    path = encoding.write(tmp_path / "far", torch.tensor([[[0.0, 1.2344, 80.0]]]))
    assert np.array(Image.open(path)).tolist() == [[0, 1234, 65535]]


def test_a_kind_of_label_that_is_not_known_is_written_as_an_array(tmp_path: Path) -> None:
    class Flow(Label):
        planes, dtype_, void = (2,), torch.float32, 0.0

    class Moving(Segmentation):
        label = Flow

    task: Task = Moving("semseg", 3)
    path = encoding_of(task, encodings(PredictConfig())).write(tmp_path / "flow", torch.zeros(2, 4, 5))
    assert np.load(path).shape == (4, 5, 2)


def test_the_16_bit_png_is_one_that_others_read() -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (3, 3, 4), dtype=np.uint16).transpose(1, 2, 0)
    data = png16(samples)
    assert np.array_equal(decode16(data), samples)
    with Image.open(io.BytesIO(data)) as picture:  # which reads the upper 8 bits, and checks the sums
        assert np.abs(np.array(picture.convert("RGB")).astype(int) - (samples >> 8)).max() <= 1
