"""Kinds of damage to a data set: where each strikes, and what it does to the file."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis.strategies import DataObject, floats, integers, sampled_from
from PIL import Image

from ..datasets.layouts import write_mat, write_npy, write_parts, write_png

SIZE = (16, 24)
Spoil = Callable[[Path, DataObject], object]


@dataclass(frozen=True)
class Damage:
    """One kind.

    Attributes:
        dataset: which data set.
        files: where it may strike, as patterns.
        spoil: does it.
        whole: whether it is about the whole split, so that no picture can be skipped for it.
        trains: whether training cannot know of it.
    """

    dataset: str
    files: tuple[str, ...]
    spoil: Spoil
    whole: bool = False
    trains: bool = False


def cut(path: Path, data: DataObject) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(integers(1, len(whole) - 1))])


def flip(path: Path, data: DataObject) -> None:
    whole = bytearray(path.read_bytes())
    whole[data.draw(integers(0, len(whole) - 1))] ^= data.draw(integers(1, 255))
    path.write_bytes(whole)


def folder_instead(path: Path, data: DataObject) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, data: DataObject) -> None:
    path.unlink()
    path.symlink_to(path)


def dangling(path: Path, data: DataObject) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def one_pixel(*values: float) -> Spoil:
    """One value of an array somewhere."""

    def spoil(path: Path, data: DataObject) -> None:
        array = np.load(path).astype(float)
        place = tuple(data.draw(integers(0, n - 1)) for n in array.shape)
        array[place] = data.draw(sampled_from(values))
        write_npy(path, array)

    return spoil


def array(make: Callable[[], Any]) -> Spoil:
    return lambda path, data: write_npy(path, make())


def picture(make: Callable[[DataObject], Any]) -> Spoil:
    return lambda path, data: write_png(path, make(data))


def text(*lines: str) -> Spoil:
    return lambda path, data: path.write_text("\n".join(lines) + "\n")


def out_of_range(first: int, last: int) -> Spoil:
    """A class that the task does not have, at one pixel of a PNG."""

    def spoil(path: Path, data: DataObject) -> None:
        classes = np.array(Image.open(path))
        place = data.draw(integers(0, SIZE[0] - 1)), data.draw(integers(0, SIZE[1] - 1))
        classes[place] = data.draw(integers(first, last))
        write_png(path, classes)

    return spoil


def pickled(path: Path, data: DataObject) -> None:
    path.write_bytes(pickle.dumps(np.zeros(SIZE)))


def archived(path: Path, data: DataObject) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, np.ones(SIZE))
    path.write_bytes(buffer.getvalue())


def bitmap(path: Path, data: DataObject) -> None:
    Image.new("RGB", SIZE[::-1]).save(path, format=data.draw(sampled_from(["BMP", "GIF", "TIFF"])))


def bomb(path: Path, data: DataObject) -> None:
    """A PNG whose header promises 60000 x 60000 pixels."""
    buffer = io.BytesIO()
    Image.new("L", (60000, 1)).save(buffer, format="PNG")
    whole = bytearray(buffer.getvalue())
    whole[20:24] = (60000).to_bytes(4, "big")
    path.write_bytes(whole)


def scaled_normals(path: Path, data: DataObject) -> None:
    write_npy(path, np.load(path) * np.float32(data.draw(floats(0.55, 0.85))))


def other_size(path: Path, data: DataObject) -> None:
    stored = np.load(path)
    write_npy(path, np.concatenate([stored] * 2, axis=data.draw(integers(0, 1))))


def add(line: bytes) -> Spoil:
    return lambda path, data: path.write_bytes(path.read_bytes() + line + b"\n")


def swapped(path: Path, data: DataObject) -> None:
    """A training picture that is a validation picture under another name."""
    path.write_bytes((path.parent / "0004.jpg").read_bytes())


def parts(name: str, size: tuple[int, int] = SIZE) -> Spoil:
    mask = np.ones(size, np.uint8)
    return lambda path, data: write_parts(path, [("person", 15, [(name, mask)])])


def label_map(make: Callable[[], Any]) -> Spoil:
    return lambda path, data: write_mat(path, LabelMap=make())


def frame(name: str, value: float) -> Spoil:
    """One frame of the official NYUv2 has another value somewhere."""

    def spoil(path: Path, data: DataObject) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            number = data.draw(sampled_from([0, 1, 2, 3, 4]))
            place = data.draw(integers(0, SIZE[1] - 1)), data.draw(integers(0, SIZE[0] - 1))
            file[name][(number, *place)] = value

    return spoil


def torn_frame(name: str) -> Spoil:
    """The compressed bytes of one frame of the official NYUv2 are overwritten."""

    def spoil(path: Path, data: DataObject) -> None:
        import h5py

        with h5py.File(path, "r") as file:
            chunk = file[name].id.get_chunk_info(data.draw(integers(0, 4)))
        with path.open("r+b") as file:
            file.seek(chunk.byte_offset + file_start(path))
            file.write(bytes(chunk.size))

    return spoil


def file_start(path: Path) -> int:
    """Bytes of MATLAB's header, unless HDF5 counts offsets from the start of the file."""
    import h5py

    with h5py.File(path, "r") as file:
        first = file["images"].id.get_chunk_info(0)
    with path.open("rb") as stream:
        stream.seek(first.byte_offset)
        return 0 if stream.read(1) == b"\x78" else 512  # of zlib


def split_lists(*numbers: int) -> Spoil:
    wrong = np.array(numbers, np.int32)[:, None]
    return lambda path, data: write_mat(path, trainNdxs=wrong, testNdxs=np.array([[1], [5]]))


def beside(name: str) -> Spoil:
    return lambda path, data: path.rename(path.with_name(name))


IMAGE, SEG, DEPTH, EDGE = ("images/*.jpg",), ("segmentation/*.png",), ("depth/*.npy",), ("edge/*.npy",)
NORMALS, LIST = ("normals/*.npy",), ("gt_sets/train.txt",)
ARRAYS, PNGS = (*DEPTH, *EDGE, *NORMALS), (*SEG, "normals/*.png")
LABELS = (*ARRAYS, *PNGS)
MAT, SPLITS_MAT = ("nyu_depth_v2_labeled.mat",), ("splits.mat",)
STREET, IDS = ("leftImg8bit/*/*/*.png",), ("gtFine/*/*/*_labelIds.png",)
DISPARITY, CAMERA = ("disparity/*/*/*.png",), ("camera/*/*/*.json",)
OWN, OWN_SIZE = ("labels/*.png", "mask/*.png", "borders/*.npy", "depth/*.png", "normals/*.npy"), (24, 32)
MAPS, PARTS = ("pascal-context/trainval/*.mat",), ("human_parts/2008_000001.mat",)

DAMAGE = {
    "missing picture": Damage("nyud", IMAGE, lambda path, data: path.unlink()),
    "missing label": Damage("nyud", LABELS, lambda path, data: path.unlink()),
    "missing folder": Damage("nyud", ("depth",), lambda path, data: path.rename(path.with_name("tiefe")), whole=True),
    "empty picture": Damage("nyud", IMAGE, lambda path, data: path.write_bytes(b"")),
    "empty label": Damage("nyud", LABELS, lambda path, data: path.write_bytes(b"")),
    "cut picture": Damage("nyud", IMAGE, cut),
    "cut PNG": Damage("nyud", PNGS, cut),
    "cut array": Damage("nyud", ARRAYS, cut),
    "flipped bits in a PNG": Damage("nyud", PNGS, flip),
    "bytes after an array": Damage("nyud", ARRAYS, add(b"more")),
    "folder for a picture": Damage("nyud", IMAGE, folder_instead),
    "folder for a label": Damage("nyud", LABELS, folder_instead),
    "link to itself": Damage("nyud", (*IMAGE, *LABELS), loop),
    "dangling link": Damage("nyud", (*IMAGE, *LABELS), dangling),
    "pickle": Damage("nyud", ARRAYS, pickled),
    "array of objects": Damage("nyud", ARRAYS, array(lambda: np.full(SIZE, None))),
    "array of strings": Damage("nyud", ARRAYS, array(lambda: np.full(SIZE, "1.5"))),
    "archive as array": Damage("nyud", ARRAYS, archived),
    "text as array": Damage("nyud", ARRAYS, text("0 1 2")),
    "text as picture": Damage("nyud", (*IMAGE, *PNGS), text("<html>404</html>")),
    "other format": Damage("nyud", (*IMAGE, *PNGS), bitmap),
    "decompression bomb": Damage("nyud", (*IMAGE, *PNGS), bomb),
    "depth as integers": Damage("nyud", DEPTH, array(lambda: np.full(SIZE, 2000, np.uint16))),
    "depth with channels": Damage("nyud", DEPTH, array(lambda: np.ones((*SIZE, 3)))),
    "depth not finite": Damage("nyud", DEPTH, one_pixel(np.nan, np.inf, -np.inf)),
    "depth below 0": Damage("nyud", DEPTH, one_pixel(-1.0, -1e-3)),
    "depth void": Damage("nyud", DEPTH, array(lambda: np.zeros(SIZE))),
    "label of another size": Damage("nyud", ARRAYS, other_size),
    "classes out of range": Damage("nyud", SEG, out_of_range(41, 255)),
    "classes in colour": Damage("nyud", SEG, picture(lambda data: np.zeros((*SIZE, 3), np.uint8))),
    "classes void": Damage("nyud", SEG, picture(lambda data: np.zeros(SIZE, np.uint8))),
    "classes turned": Damage("nyud", SEG, picture(lambda data: np.ones(SIZE[::-1], np.uint8))),
    "normals shorter": Damage("nyud", NORMALS, scaled_normals),
    "normals too long": Damage("nyud", NORMALS, one_pixel(2.0, -128.0)),
    "normals not finite": Damage("nyud", NORMALS, one_pixel(np.nan, np.inf)),
    "normals void": Damage("nyud", NORMALS, array(lambda: np.zeros((*SIZE, 3)))),
    "normals flat": Damage("nyud", NORMALS, array(lambda: np.ones(SIZE))),
    "normals as noise": Damage(
        "nyud", ("normals/*.png",), picture(lambda data: np.full((*SIZE, 3), data.draw(integers(225, 255)), np.uint8))
    ),
    "edges out of range": Damage("nyud", EDGE, one_pixel(2.0, -1.0, 255.0)),
    "edges not finite": Damage("nyud", EDGE, one_pixel(np.nan)),
    "missing list": Damage("nyud", LIST, lambda path, data: path.unlink(), whole=True),
    "empty list": Damage("nyud", LIST, text(""), whole=True),
    "list not UTF-8": Damage("nyud", LIST, add(b"\xff\xfe"), whole=True),
    "list a folder": Damage("nyud", LIST, folder_instead, whole=True),
    "name twice": Damage("nyud", LIST, add(b"0001"), whole=True),
    "name outside": Damage("nyud", LIST, add(b"../0001"), whole=True),
    "name without files": Damage("nyud", LIST, add(b"0099")),
    "picture in both splits": Damage("nyud", LIST, add(b"0004"), trains=True),
    "picture under two names": Damage("nyud", ("images/0002.jpg",), swapped, trains=True),
    "cut MATLAB file": Damage("pascal", (*MAPS, *PARTS), cut),
    "variable missing": Damage("pascal", MAPS, lambda path, data: write_mat(path, other=np.ones(SIZE))),
    "label map out of range": Damage("pascal", MAPS, label_map(lambda: np.full(SIZE, 460, np.uint16))),
    "label map of another size": Damage("pascal", MAPS, label_map(lambda: np.ones((4, 4), np.uint16))),
    "unknown part": Damage("pascal", PARTS, parts("tail")),
    "parts of another size": Damage("pascal", PARTS, parts("head", (4, 4))),
    "saliency in colour": Damage(
        "pascal", ("sal_distill/*.png",), picture(lambda data: np.zeros((*SIZE, 3), np.uint8))
    ),
    "VOC class out of range": Damage("pascal", ("semseg/*/*.png",), out_of_range(21, 254)),
    "pixels out of range": Damage("nyuv2", ("*/image/*.npy",), one_pixel(1.5, -0.5, 255.0)),
    "pixels not finite": Damage("nyuv2", ("*/image/*.npy",), one_pixel(np.nan, np.inf)),
    "pixels of another type": Damage("nyuv2", ("*/image/*.npy",), array(lambda: np.zeros((*SIZE, 3), np.int32))),
    "picture without number": Damage(
        "nyuv2", ("*/image/*.npy",), lambda p, data: p.rename(p.with_name("a.npy")), whole=True
    ),
    "picture missing beside labels": Damage("nyuv2", ("*/image/*.npy",), lambda path, data: path.unlink()),
    "classes between": Damage("nyuv2", ("*/label/*.npy",), one_pixel(0.5, -2.0, 256.0, np.nan)),
    "NYUv2 class out of range": Damage("nyuv2", ("*/label/*.npy",), one_pixel(13.0, 40.0, 254.0)),
    "labels of more classes": Damage("cityscapes", ("*/label_7/*.npy",), one_pixel(7.0, 18.0)),
    "disparity below 0": Damage("cityscapes", ("*/depth/*.npy",), one_pixel(-1.0)),
    "promised parts missing": Damage("pascal", PARTS, lambda path, data: path.unlink()),
    "list of parts damaged": Damage("pascal", ("ImageSets/Parts/train.txt",), text('{"2008_000001": 15'), whole=True),
    "saliency cut": Damage("pascal", ("sal_distill/*.png",), cut),
    "official file cut": Damage("nyuv2 official", MAT, cut, whole=True),
    "official file a folder": Damage("nyuv2 official", MAT, folder_instead, whole=True),
    "official file dangling": Damage("nyuv2 official", MAT, dangling, whole=True),
    "official splits missing": Damage("nyuv2 official", SPLITS_MAT, lambda path, data: path.unlink(), whole=True),
    "official splits cut": Damage("nyuv2 official", SPLITS_MAT, cut, whole=True),
    "official splits out of range": Damage("nyuv2 official", SPLITS_MAT, split_lists(2, 6), whole=True),
    "official splits double": Damage("nyuv2 official", SPLITS_MAT, split_lists(2, 3, 2), whole=True),
    "official frame torn": Damage("nyuv2 official", MAT, torn_frame("images")),
    "official depth torn": Damage("nyuv2 official", MAT, torn_frame("depths")),
    "official depth not finite": Damage("nyuv2 official", MAT, frame("depths", np.nan)),
    "official depth below 0": Damage("nyuv2 official", MAT, frame("depths", -2)),
    "official label unknown": Damage("nyuv2 official", MAT, frame("labels", 895)),
    "official normals missing": Damage("nyuv2 official", NORMALS, lambda path, data: path.unlink()),
    "official normals cut": Damage("nyuv2 official", NORMALS, cut),
    "street missing": Damage("cityscapes official", STREET, lambda path, data: path.unlink()),
    "street cut": Damage("cityscapes official", STREET, cut),
    "street misnamed": Damage("cityscapes official", STREET, beside("street.png"), whole=True),
    "street's label missing": Damage("cityscapes official", (*IDS, *CAMERA, *DISPARITY), lambda p, data: p.unlink()),
    "street's label cut": Damage("cityscapes official", (*IDS, *CAMERA, *DISPARITY), cut),
    "street's label a folder": Damage("cityscapes official", (*IDS, *CAMERA, *DISPARITY), folder_instead),
    "unknown id": Damage("cityscapes official", IDS, out_of_range(34, 254)),
    "disparity of 8 bits": Damage("cityscapes official", DISPARITY, picture(lambda data: np.ones(SIZE, np.uint8))),
    "camera without baseline": Damage("cityscapes official", CAMERA, text('{"intrinsic": {"fx": 2262.5}}')),
    "camera at 0": Damage("cityscapes official", CAMERA, text('{"extrinsic":{"baseline":0},"intrinsic":{"fx":9}}')),
    "city missing": Damage("cityscapes official", ("gtFine/train/bochum",), lambda path, data: shutil.rmtree(path)),
    "own picture missing": Damage("folder", ("rgb/*.png",), lambda path, data: path.unlink()),
    "own label missing": Damage("folder", OWN, lambda path, data: path.unlink()),
    "own label cut": Damage("folder", (*OWN, "parts/*.npy"), cut),
    "own class out of range": Damage("folder", ("labels/*.png",), picture(lambda data: np.full(OWN_SIZE, 4, np.uint8))),
    "own name twice": Damage("folder", ("lists/train.txt",), add(b"a"), whole=True),
}
