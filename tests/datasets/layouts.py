"""Tiny data sets in the layouts NYUD_MT, PASCAL_MT and MTAN, written for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Size = tuple[int, int]  # height, width
Part = tuple[str, NDArray[Any]]
Object = tuple[str, int, Sequence[Part]]  # class, its index, parts


def write_nyud(root: Path, size: Size = (24, 32), train: int = 2, val: int = 1) -> Path:
    """Pictures 0001, 0002, ... with every annotation; normals of odd pictures as .npy, of even ones as .png."""
    names = [f"{number:04}" for number in range(1, train + val + 1)]
    _write_lists(root / "gt_sets", names, train)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        write_picture(root / f"images/{name}.jpg", rng, size)
        write_png(root / f"segmentation/{name}.png", _blocks(rng, size, 41).astype(np.uint8))
        write_npy(root / f"depth/{name}.npy", _with_zeros(rng.uniform(0.5, 9, size)).astype(np.float32))
        write_npy(root / f"edge/{name}.npy", rng.integers(0, 2, size, np.uint8))
        normals = _normals(rng, size)
        if seed % 2:
            write_png(root / f"normals/{name}.png", np.rint(127.5 * (normals + 1)).astype(np.uint8))
        else:
            write_npy(root / f"normals/{name}.npy", normals)
    return root


def write_pascal(root: Path, size: Size = (24, 32), train: int = 2, val: int = 1) -> Path:
    """Pictures 2008_000001, ... with every annotation; odd pictures show a person and even ones only a dog."""
    names = [f"2008_{number:06}" for number in range(1, train + val + 1)]
    _write_lists(root / "ImageSets/Context", names, train)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        write_picture(root / f"JPEGImages/{name}.jpg", rng, size)
        folder = "VOC12" if seed % 2 else "pascal-context"
        write_png(root / f"semseg/{folder}/{name}.png", _blocks(rng, size, 21).astype(np.uint8), palette=True)
        write_png(root / f"sal_distill/{name}.png", rng.integers(0, 256, size, np.uint8))
        write_png(root / f"normals_distill/{name}.png", np.rint(127.5 * (_normals(rng, size) + 1)).astype(np.uint8))
        write_mat(root / f"pascal-context/trainval/{name}.mat", LabelMap=_blocks(rng, size, 460).astype(np.uint16))
        parts = [("head", rectangle(size, 0, 4)), ("torso", rectangle(size, 3, 12)), ("lfoot", rectangle(size, 18, 22))]
        write_parts(root / f"human_parts/{name}.mat", [("dog", 12, parts) if seed % 2 else ("person", 15, parts)])
    return root


def write_mtan(
    root: Path,
    size: Size = (24, 32),
    train: int = 2,
    val: int = 1,
    labels: Mapping[str, int] | None = None,
    normals: bool = True,
) -> Path:
    """Arrays 0.npy, 1.npy, ... with every annotation; `labels` gives the folders of labels and their classes.

    Squares of labels are -1 here and there; the first row has neither depth nor normals.
    """
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            rng = np.random.default_rng((split == "val", number))
            write_npy(root / f"{split}/image/{number}.npy", rng.random((*size, 3)))
            for folder, classes in (labels or {"label": 13}).items():
                write_npy(root / f"{split}/{folder}/{number}.npy", _blocks(rng, size, classes + 1) - 1)
            depth = _with_zeros(rng.uniform(0.5, 9, (*size, 1))).astype(np.float32)
            write_npy(root / f"{split}/depth/{number}.npy", depth)
            if normals:
                write_npy(root / f"{split}/normal/{number}.npy", _normals(rng, size))
    return root


def write_nyu_official(
    root: Path, size: Size = (24, 32), frames: int = 5, train: Sequence[int] = (2, 4), val: Sequence[int] = (1, 5)
) -> Path:
    """nyu_depth_v2_labeled.mat as MATLAB writes it, with axes reversed and cells as references; and splits.mat.

    A floor that runs away from the camera fills the lower half, a wall the upper one; frame n has label 0 in its first
    n columns. Raw depth is missing in the first row.
    """
    import h5py

    height, width = size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (frames, 3, width, height), np.uint8)
    labels = np.full((frames, height, width), 21, np.uint16)  # wall
    labels[:, height // 2 :] = 11  # floor
    for frame in range(frames):
        labels[frame, :, : frame + 1] = 0
    depths = np.full((frames, height, width), 3.0, np.float32)
    depths += np.arange(frames, dtype=np.float32)[:, None, None]
    raw = _with_zeros(depths.swapaxes(0, 1).copy()).swapaxes(0, 1)
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file.create_dataset("images", data=images, chunks=(1, 3, width, height), compression="gzip")
        file.create_dataset("labels", data=labels.swapaxes(1, 2), chunks=(1, width, height), compression="gzip")
        file.create_dataset("depths", data=depths.swapaxes(1, 2), chunks=(1, width, height), compression="gzip")
        file.create_dataset("rawDepths", data=raw.swapaxes(1, 2), chunks=(1, width, height), compression="gzip")
        names = [file.create_dataset(f"#refs#/{n}", data=np.array([[ord("a")]], np.uint16)) for n in range(894)]
        cells = file.create_dataset("names", (1, 894), h5py.ref_dtype)
        cells[0] = [name.ref for name in names]
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM"
    with (root / "nyu_depth_v2_labeled.mat").open("r+b") as file:
        file.write(header)
    numbers = {"trainNdxs": np.array(train, np.uint16)[:, None], "testNdxs": np.array(val, np.uint16)[:, None]}
    write_mat(root / "splits.mat", **numbers)
    return root


def write_cityscapes(root: Path, size: Size = (16, 32), train: int = 3, val: int = 1, ids: int = 34) -> Path:
    """The official folders, of two cities a split; id k fills squares, disparity is missing in the first row."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            rng = np.random.default_rng((split == "val", number))
            city = ("aachen", "bochum")[number % 2]
            name = f"{split}/{city}/{city}_{number:06}_000019"
            write_picture(root / f"leftImg8bit/{name}_leftImg8bit.png", rng, size)
            write_png(root / f"gtFine/{name}_gtFine_labelIds.png", _blocks(rng, size, ids).astype(np.uint8))
            (root / f"gtFine/{name}_gtFine_color.png").touch()
            disparity = _with_zeros(rng.integers(2, 32257, size)).astype(np.uint16)
            write_png(root / f"disparity/{name}_disparity.png", disparity)
            camera = {"extrinsic": {"baseline": 0.209313, "pitch": 0.038}, "intrinsic": {"fx": 2262.52, "fy": 2265.3}}
            path = root / f"camera/{name}_camera.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(camera))
    return root


def write_picture(path: Path, rng: np.random.Generator, size: Size) -> None:
    """A JPEG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path, quality=95)


def write_png(path: Path, array: NDArray[Any], palette: bool = False) -> None:
    """Greyscale or RGB; or palette indices, whose colours are not their numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette([255 - value // 3 for value in range(768)])
    picture.save(path)


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """One array; of objects too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)


def write_mat(path: Path, **variables: Any) -> None:
    """A MATLAB file of version 5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, do_compression=True)


def write_parts(path: Path, objects: Sequence[Object]) -> None:
    """PASCAL-Part's struct `anno`: imname and objects (class, class_ind, mask, parts (part_name, mask))."""
    rows = [(kind, index, _union(parts), _struct(("part_name", "mask"), parts)) for kind, index, parts in objects]
    table = _struct(("class", "class_ind", "mask", "parts"), rows)
    write_mat(path, anno=_struct(("imname", "objects"), [(path.stem, table)]))


def rectangle(size: Size, top: int, bottom: int) -> NDArray[np.uint8]:
    """A mask of the rows from `top` up to `bottom`, without the outermost columns."""
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, 1:-1] = 1
    return mask


def _struct(fields: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> NDArray[Any]:
    rows = list(rows)
    table = np.empty((1, len(rows)) if rows else (0, 0), [(field, object) for field in fields])
    for column, row in enumerate(rows):
        table[0, column] = row
    return table


def _union(parts: Sequence[Part]) -> NDArray[Any]:
    return np.maximum.reduce([mask for _, mask in parts]) if parts else np.zeros((1, 1), np.uint8)


def _write_lists(folder: Path, names: Sequence[str], train: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[train:]) + "\n")


def _blocks(rng: np.random.Generator, size: Size, values: int) -> NDArray[np.int64]:
    """Squares of 8 x 8 pixels, of which the first is 0."""
    coarse = rng.integers(0, values, (-(-size[0] // 8), -(-size[1] // 8)))
    coarse[0, 0] = 0
    return np.kron(coarse, np.ones((8, 8), np.int64))[: size[0], : size[1]]


def _normals(rng: np.random.Generator, size: Size) -> NDArray[np.float32]:
    """Unit vectors that face the camera; the first row is not annotated."""
    vectors = rng.normal(size=(*size, 3)) + np.array([0, 0, 2])
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit[0] = 0
    return np.asarray(unit, np.float32)


def _with_zeros(array: NDArray[Any]) -> NDArray[Any]:
    array[0] = 0
    return array
