"""Small data sets of realistic size in every layout, so that loading can be timed without anybody's files.

Pictures and depth are smooth with a little grain and labels are patches with curved borders, so that compressed files
are about as large as real ones and cost about as much to decode.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

Size = tuple[int, int]  # height, width

NYU, MTAN_NYU, VOC = (480, 640), (288, 384), (375, 500)
CITY, MTAN_CITY = (1024, 2048), (128, 256)
DESCRIPTION = """
images: images/*.jpg
splits: {train: train.txt, val: val.txt}
tasks:
  semseg: {kind: segmentation, files: semseg/*.png, classes: 40}
  depth: {kind: depth, files: depth/*.png, scale: 0.001}
  normals: {kind: normals, files: normals/*.png}
  edges: {kind: edges, files: edges/*.png, above: 127}
"""


def write_nyud(root: Path, frames: int) -> None:
    """Layout NYUD_MT: JPEG, PNG and .npy of 640 x 480."""
    names = _listed(root / "gt_sets", frames)
    for rng, name in names:
        classes = patches(rng, NYU, 41)
        save_picture(root / f"images/{name}.jpg", photograph(rng, NYU))
        save_picture(root / f"segmentation/{name}.png", classes.astype(np.uint8))
        save_array(root / f"depth/{name}.npy", distance(rng, NYU))
        save_array(root / f"normals/{name}.npy", directions(rng, NYU))
        save_array(root / f"edge/{name}.npy", borders(classes).astype(np.uint8))


def write_nyu_official(root: Path, frames: int) -> None:
    """The MATLAB file of 640 x 480, a chunk for each frame and variable as in the real one; and splits.mat."""
    import h5py
    from scipy.io import savemat

    rngs = [np.random.default_rng(seed) for seed in range(frames)]
    variables = {
        "images": np.stack([photograph(rng, NYU).transpose(2, 1, 0) for rng in rngs]),
        "labels": np.stack([patches(rng, NYU, 895).T.astype(np.uint16) for rng in rngs]),
        "depths": np.stack([distance(rng, NYU).T for rng in rngs]),
    }
    root.mkdir(parents=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        for name, values in variables.items():
            values = np.asarray(values)
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
    numbers = np.arange(1, frames + 1, dtype=np.uint16)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers, "testNdxs": numbers})


def write_mtan_nyu(root: Path, frames: int) -> None:
    """MTAN's copies of NYUv2: .npy of 384 x 288, pictures as float64."""
    for seed in range(frames):
        rng = np.random.default_rng(seed)
        save_mtan(
            root,
            seed,
            image=photograph(rng, MTAN_NYU) / 255,
            label=patches(rng, MTAN_NYU, 14).astype(np.float64) - 1,
            depth=distance(rng, MTAN_NYU)[..., None],
            normal=directions(rng, MTAN_NYU),
        )


def write_cityscapes(root: Path, frames: int) -> None:
    """The official folders: PNG of 2048 x 1024, of 16 bits for disparity."""
    for seed in range(frames):
        rng = np.random.default_rng(seed)
        name = f"train/aachen/aachen_{seed:06}_000019"
        save_picture(root / f"leftImg8bit/{name}_leftImg8bit.png", photograph(rng, CITY))
        save_picture(root / f"gtFine/{name}_gtFine_labelIds.png", patches(rng, CITY, 34).astype(np.uint8))
        disparity = (256 * 130 / (distance(rng, CITY) + 1)).astype(np.uint16)
        save_picture(root / f"disparity/{name}_disparity.png", disparity)
        camera = root / f"camera/{name}_camera.json"
        camera.parent.mkdir(parents=True, exist_ok=True)
        camera.write_text(json.dumps({"extrinsic": {"baseline": 0.209313}, "intrinsic": {"fx": 2262.52}}))


def write_mtan_cityscapes(root: Path, frames: int) -> None:
    """MTAN's copies of Cityscapes: .npy of 256 x 128, pictures as float64."""
    for seed in range(frames):
        rng = np.random.default_rng(seed)
        save_mtan(
            root,
            seed,
            image=photograph(rng, MTAN_CITY) / 255,
            label_7=patches(rng, MTAN_CITY, 8).astype(np.float64) - 1,
            depth=distance(rng, MTAN_CITY)[..., None] / 20,
        )


def write_pascal(root: Path, frames: int) -> None:
    """Layout PASCAL_MT: JPEG, PNG and MATLAB files of 500 x 375; two people with ten parts each in every picture."""
    from scipy.io import savemat

    for rng, name in _listed(root / "ImageSets/Context", frames):
        save_picture(root / f"JPEGImages/{name}.jpg", photograph(rng, VOC))
        save_picture(root / f"semseg/VOC12/{name}.png", patches(rng, VOC, 21).astype(np.uint8))
        save_picture(root / f"sal_distill/{name}.png", (255 * field(rng, VOC, 6)).astype(np.uint8))
        save_picture(root / f"normals_distill/{name}.png", coded(directions(rng, VOC)))
        contexts = patches(rng, VOC, 460).astype(np.uint16)
        contexts[: VOC[0] // 2] = 440  # a wall, which NYUv2 knows too: its normals are kept
        for path, variables in {
            root / f"pascal-context/trainval/{name}.mat": {"LabelMap": contexts},
            root / f"human_parts/{name}.mat": {"anno": _people(name, patches(rng, VOC, 21))},
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            savemat(path, variables, do_compression=True)


def write_folder(root: Path, frames: int) -> None:
    """A user's folder: JPEG and PNG of 640 x 480, of 16 bits for depth in millimetres."""
    for rng, name in _listed(root, frames):
        classes = patches(rng, NYU, 40)
        save_picture(root / f"images/{name}.jpg", photograph(rng, NYU))
        save_picture(root / f"semseg/{name}.png", classes.astype(np.uint8))
        save_picture(root / f"depth/{name}.png", (1000 * distance(rng, NYU)).astype(np.uint16))
        save_picture(root / f"normals/{name}.png", coded(directions(rng, NYU)))
        save_picture(root / f"edges/{name}.png", np.where(borders(classes), 255, 0).astype(np.uint8))
    (root / "dataset.yaml").write_text(DESCRIPTION)


def field(rng: np.random.Generator, size: Size, cells: int, planes: int = 1) -> NDArray[np.float64]:
    """Smooth values from 0 to 1 with about `cells` hills along the height: (H, W), or (H, W, planes)."""
    coarse = torch.from_numpy(rng.random((1, planes, cells, cells * size[1] // size[0])))
    smooth = interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1).permute(1, 2, 0).numpy()
    return np.asarray(smooth[..., 0] if planes == 1 else smooth)


def photograph(rng: np.random.Generator, size: Size) -> NDArray[np.uint8]:
    """Colours that change softly, details and the grain of a sensor: (H, W, 3)."""
    soft = 0.6 * field(rng, size, 8, 3) + 0.25 * field(rng, size, size[0] // 8)[..., None]
    grain = rng.normal(0, 1.5, (*size, 3))
    return (255 * soft + 20 + grain).clip(0, 255).astype(np.uint8)


def patches(rng: np.random.Generator, size: Size, classes: int) -> NDArray[np.int64]:
    """About 40 areas with curved borders, each of a class from 0 to `classes` - 1: (H, W)."""
    row, column = (field(rng, size, 6) for _ in range(2))
    which = (6 * row).astype(np.int64) * 7 + (6 * column).astype(np.int64)
    return rng.integers(0, classes, 49)[which]


def borders(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the class of the next column is another: (H, W)."""
    return np.asarray(np.diff(classes, axis=1, prepend=classes[:, :1]) != 0)


def distance(rng: np.random.Generator, size: Size) -> NDArray[np.float32]:
    """Metres, from 1 to 9: (H, W)."""
    return (1 + 8 * field(rng, size, 5)).astype(np.float32)


def directions(rng: np.random.Generator, size: Size) -> NDArray[np.float32]:
    """Unit vectors that face the camera: (H, W, 3)."""
    vectors = field(rng, size, 6, 3) - [0.5, 0.5, -0.5]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def coded(normals: NDArray[np.float32]) -> NDArray[np.uint8]:
    """As 8-bit RGB."""
    return np.asarray(np.rint(127.5 * (normals + 1)), np.uint8)


def save_picture(path: Path, pixels: NDArray[Any]) -> None:
    """As JPEG or PNG, by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def save_array(path: Path, values: NDArray[Any]) -> None:
    """As .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def save_mtan(root: Path, number: int, **values: NDArray[Any]) -> None:
    """A frame in the layout MTAN, by folder."""
    for folder, array in values.items():
        save_array(root / f"train/{folder}/{number}.npy", np.asarray(array))


def _listed(folder: Path, frames: int) -> list[tuple[np.random.Generator, str]]:
    """A generator and a name for each frame, all of which train.txt and val.txt list."""
    names = [f"{number:04}" for number in range(1, frames + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
    return [(np.random.default_rng(seed), name) for seed, name in enumerate(names)]


def _people(name: str, areas: NDArray[np.int64]) -> NDArray[Any]:
    """PASCAL-Part's struct `anno` of two people; an area each is a part."""
    known = ("head", "hair", "neck", "torso", "luarm", "ruarm", "luleg", "ruleg", "lfoot", "rfoot")
    people = []
    for person in range(2):
        masks = [(areas == 10 * person + place + 1).astype(np.uint8) for place in range(len(known))]
        parts = _struct(("part_name", "mask"), list(zip(known, masks, strict=True)))
        people.append(("person", 15, np.maximum.reduce(masks), parts))
    return _struct(("imname", "objects"), [(name, _struct(("class", "class_ind", "mask", "parts"), people))])


def _struct(fields: tuple[str, ...], rows: list[tuple[Any, ...]]) -> NDArray[Any]:
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for column, row in enumerate(rows):
        table[0, column] = row
    return table
