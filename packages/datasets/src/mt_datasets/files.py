"""Readers of single files: whatever is wrong with one becomes a DataError that names it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from mt_core.errors import DataError
from mt_core.labels import IGNORE

MAX_PIXELS = 1 << 26  # 8192 x 8192; below the size at which PIL starts to warn of decompression bombs

# PIL scales greyscale PNGs of 2 and 4 bits, into which optimisers like to pack label maps, up to 0..255.
_STEP = {"L;2": 85, "L;4": 17}


def read_ids(path: Path) -> list[str]:
    """The names of pictures in a split list: one a line, in order.

    Raises:
        DataError: if it is missing, empty or no UTF-8 text, or a name stands twice or would leave its folder.
    """
    with reading(path, "a UTF-8 text with the name of one picture a line"):
        ids = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not ids:
        raise DataError(f"{path}: lists no picture; write the name of one picture a line")
    seen: set[str] = set()
    for name in ids:
        if ".." in name or not name.isprintable() or any(character in name for character in "/\\"):
            raise DataError(f"{path}: {name!r} is no name of a picture; expected a file name without folder and ending")
        if name in seen:
            raise DataError(f"{path}: {name!r} stands twice; every picture may stand once")
        seen.add(name)
    return ids


def read_numbers(folder: Path) -> list[str]:
    """The names of a folder's arrays 0.npy, 1.npy, ..., without the ending and in the order of the numbers.

    Raises:
        DataError: if the folder is missing or holds no array, or one that has no number.
    """
    with reading(folder, "a folder of arrays 0.npy, 1.npy, ..."):
        names = [path.stem for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith(".")]
    if not names:
        raise DataError(f"{folder}: holds no array; expected 0.npy, 1.npy, ...; restore them")
    for name in names:
        if not (name.isascii() and name.isdecimal()):
            raise DataError(f"{folder}: {name}.npy has no number; expected 0.npy, 1.npy, ...; number it or remove it")
    return sorted(names, key=lambda name: (int(name), name))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A photograph as RGB: (3, H, W) uint8. Raises DataError."""
    with reading(path, "a JPEG picture"), _opened(path, ("JPEG", "PNG")) as picture:
        return _planes(np.array(picture.convert("RGB")))


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as RGB, (3, H, W) uint8, from an .npy (H, W, 3) of uint8, or of floats in [0, 1]. Raises DataError."""
    array = _read_npy(path)
    expected = "a picture, (H, W, 3) of uint8, or of floats in [0, 1]"
    is_float = array.dtype.kind == "f"
    if array.ndim != 3 or array.shape[-1] != 3 or not array.size or not (is_float or array.dtype == np.uint8):
        raise DataError(f"{path}: {array.dtype} of shape {array.shape}; expected {expected}")
    if not is_float:
        return _planes(array)
    if not np.abs(array - 0.5).max() <= 0.6:  # an interpolated picture may overshoot a little; NaN is refused too
        raise DataError(f"{path}: values from {array.min():.4g} to {array.max():.4g}; expected {expected}")
    return _planes((255 * array.clip(0, 1)).round().astype(np.uint8))


def read_classes(path: Path) -> NDArray[np.int64]:
    """The indices of a palette or greyscale PNG: (H, W) int64. Raises DataError."""
    with reading(path, "a PNG of class indices"), _opened(path, ("PNG",)) as picture:
        _expect_mode(path, picture, ("P", "L", "I", "I;16", "1"), "one channel of class indices (palette or greyscale)")
        step = _STEP.get(str(picture.tile[0].args), 1)  # the raw mode, before it is decoded
        return np.array(picture).astype(np.int64) // step


def read_labels(path: Path) -> NDArray[np.int64]:
    """Class indices (H, W) int64 from an .npy of whole numbers, in which -1 means "not annotated", and becomes 255.

    Raises:
        DataError: if the file cannot be read, or holds anything but whole numbers from -1 to 255.
    """
    plane = read_plane(path)
    whole = (plane >= -1) & (plane <= IGNORE) & (plane == np.rint(plane))
    if not whole.all():
        raise DataError(f"{path}: found {plane[~whole][0]}; expected class indices, or -1 where it is not annotated")
    classes = plane.astype(np.int64)
    return np.where(classes == -1, IGNORE, classes)


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A greyscale PNG: (H, W) uint8. Raises DataError."""
    with reading(path, "a greyscale PNG"), _opened(path, ("PNG",)) as picture:
        _expect_mode(path, picture, ("L", "1"), "8-bit greyscale")
        return np.array(picture.convert("L"))


def read_grey16(path: Path) -> NDArray[np.int64]:
    """A greyscale PNG of 16 bits: (H, W) int64. Raises DataError."""
    with reading(path, "a 16-bit greyscale PNG"), _opened(path, ("PNG",)) as picture:
        _expect_mode(path, picture, ("I;16", "I;16B", "I"), "16-bit greyscale")
        return np.array(picture).astype(np.int64)


def read_normals(path: Path) -> NDArray[np.float32]:
    """Unit normals (3, H, W) from an 8-bit RGB PNG (n = p / 127.5 - 1) or an .npy (H, W, 3).

    Vectors shorter than half mean "not annotated" and become (0, 0, 0); the others are brought to unit length.

    Raises:
        DataError: if the file cannot be read, or the .npy does not hold components in [-1, 1].
    """
    return _unit(_READ_NORMALS[path.suffix](path))


def read_plane(path: Path) -> NDArray[Any]:
    """An .npy of numbers, (H, W) or (H, W, 1) -> (H, W). Raises DataError."""
    array = _read_npy(path)
    plane = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if plane.ndim != 2:
        raise DataError(f"{path}: the shape is {array.shape}; expected (H, W) or (H, W, 1)")
    return plane


def read_depth(path: Path) -> NDArray[np.float32]:
    """Depth (1, H, W) from an .npy of floats, (H, W) or (H, W, 1); 0 where it is missing. Raises DataError."""
    depth = read_plane(path)
    if depth.dtype.kind != "f":
        raise DataError(f"{path}: depth as {depth.dtype}; expected floats, 0 where it is missing")
    return depth.astype(np.float32)[None]  # (1, H, W)


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """One variable of a MATLAB file, version 7 or older. Raises DataError."""
    from scipy.io import loadmat  # slow to import, and few data sets need it

    with reading(path, "a MATLAB file (version 7 or older)"):
        variables = loadmat(path, variable_names=[name])
    if name not in variables:
        raise DataError(f"{path}: holds no variable {name!r}; restore the file")
    array: NDArray[Any] = variables[name]
    return array


def _normals_of_png(path: Path) -> NDArray[np.float32]:
    with reading(path, "a PNG of normals"), _opened(path, ("PNG",)) as picture:
        _expect_mode(path, picture, ("RGB",), "8-bit RGB, n = p / 127.5 - 1")
        return _planes(np.array(picture)).astype(np.float32) / 127.5 - 1


def _normals_of_npy(path: Path) -> NDArray[np.float32]:
    array = _read_npy(path)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype.kind != "f":
        raise DataError(f"{path}: {array.dtype} of shape {array.shape}; expected normals, floats of shape (H, W, 3)")
    largest = float(np.abs(array).max(initial=0))
    if largest > 1.1:  # an interpolated unit vector may overshoot a little
        raise DataError(
            f"{path}: a component of size {largest:.4g}; expected unit normals, components in [-1, 1] "
            f"(8-bit codes belong in a .png)"
        )
    return _planes(array.astype(np.float32))


_READ_NORMALS = {".png": _normals_of_png, ".npy": _normals_of_npy}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.sqrt(np.einsum("chw,chw->hw", vectors, vectors))
    too_short = length < 0.5
    length[too_short] = 1
    vectors /= length
    vectors[:, too_short] = 0
    return vectors


def _read_npy(path: Path) -> NDArray[Any]:
    # np.load would also unpack archives, which have other contents than a label
    with reading(path, "a NumPy array (.npy) of numbers"), path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: holds {array.dtype}; expected numbers")
    return array


def _planes(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(2, 0, 1))  # (C, H, W)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
    with Image.open(path, formats=formats) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{path}: {width} x {height} pixels; expected at most {MAX_PIXELS}: scale it down")
        yield picture


def _expect_mode(path: Path, picture: Image.Image, modes: Collection[str], expected: str) -> None:
    if picture.mode not in modes:
        raise DataError(f"{path}: a picture of mode {picture.mode}; expected {expected}")


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turns every failure to read `path` into a DataError."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected {expected}") from error
    except Exception as error:  # decoders fail in as many ways as a file can be damaged
        raise DataError(
            f"{path}: cannot be read as {expected} ({type(error).__name__}: {error}); restore the file"
        ) from error
