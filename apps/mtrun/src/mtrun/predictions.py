"""The files that hold predictions: the values, and a picture of them in colour."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mt_core.files import atomic_path, write_bytes
from mt_core.labels import BinaryMap, ClassMap, DepthMap, Label, NormalMap
from mt_core.task import Task

from .config import DepthFormat, NormalsFormat, PredictConfig
from .panels import to_image

DEEPEST = 65535  # millimetres


@dataclass(frozen=True)
class Encoding:
    """How values are stored in a file.

    Attributes:
        meaning: of the numbers, in words.
        write: function of a path without ending and the values, without a batch axis -> the file.
    """

    meaning: str
    write: Callable[[Path, Tensor], Path]


def encodings(config: PredictConfig) -> dict[type[Label], Encoding]:
    """How each type of label is written."""
    return {
        ClassMap: Encoding("class index", _classes),
        BinaryMap: Encoding("probability, 0 to 255", _shares),
        DepthMap: DEPTH[config.depth.format],
        NormalMap: NORMALS[config.normals.format],
    }


def encoding_of(task: Task, known: Mapping[type[Label], Encoding]) -> Encoding:
    """How a task's predictions are written: as its label's type, or else as npy."""
    return next((known[cls] for cls in task.label.__mro__ if cls in known), OTHER)


def write_colours(path: Path, task: Task, values: Tensor) -> Path:
    """Write what a person wants to see of a prediction."""
    return _png(path, to_image(task.colours(values)))


def png16(samples: NDArray[np.uint16]) -> bytes:
    """A PNG of (H, W, 3) 16-bit samples, which Pillow cannot write (PNG specification, third edition, section 5)."""
    height, width, _ = samples.shape
    rows = samples.astype(">u2", order="C").view(np.uint8).reshape(height, -1)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # each row begins with its filter: 0, none

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)  # 16 bits, colour type RGB
    data = chunk(b"IDAT", zlib.compress(filtered.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def _classes(path: Path, values: Tensor) -> Path:
    """(H, W) classes; 8 bits where they suffice."""
    classes = values.numpy()
    return _png(path, Image.fromarray(classes.astype(np.uint8 if classes.max(initial=0) < 256 else np.uint16)))


def _shares(path: Path, values: Tensor) -> Path:
    """(1, H, W) probabilities"""
    return _png(path, Image.fromarray((values[0] * 255).round().to(torch.uint8).numpy()))


def _millimetres(path: Path, values: Tensor) -> Path:
    """(1, H, W) metres"""
    depth = (values[0].double() * 1000).round().clamp(0, DEEPEST)
    return _png(path, Image.fromarray(depth.numpy().astype(np.uint16)))


def _normals(path: Path, values: Tensor) -> Path:
    """(3, H, W) unit vectors"""
    samples = ((values.double() + 1) * 32767.5).round().clamp(0, 65535).permute(1, 2, 0)
    target = path.with_name(f"{path.name}.png")
    write_bytes(target, png16(samples.numpy().astype(np.uint16)))
    return target


def _npy(path: Path, values: Tensor) -> Path:
    """(C, H, W) as (H, W, C), one channel as (H, W)"""
    array: NDArray[Any] = values.numpy()
    array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    target = path.with_name(f"{path.name}.npy")
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))
    return target


def _png(path: Path, picture: Image.Image) -> Path:
    target = path.with_name(f"{path.name}.png")
    with atomic_path(target) as temporary:
        picture.save(temporary)
    return target


DEPTH = {
    DepthFormat.png: Encoding(f"depth in millimetres, 16 bit, {DEEPEST} and beyond clipped", _millimetres),
    DepthFormat.npy: Encoding("depth in metres, float32 (H, W)", _npy),
}
NORMALS = {
    NormalsFormat.png: Encoding("normal n = p / 32767.5 - 1, 16 bit; x right, y up, z towards the camera", _normals),
    NormalsFormat.npy: Encoding("unit normal, float32 (H, W, 3); x right, y up, z towards the camera", _npy),
}
OTHER = Encoding("values, (H, W) or (H, W, C)", _npy)
