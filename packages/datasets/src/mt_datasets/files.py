"""Readers of single files: whatever is wrong with one becomes a DataError that names it."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
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
    return _faultless(*scan_ids(path))


def scan_ids(path: Path) -> tuple[list[str], list[str]]:
    """The names of pictures in a split list that can be used, each once, and what is wrong with the others.

    Raises:
        DataError: if it is missing, empty or no UTF-8 text.
    """
    with reading(path, "a UTF-8 text with the name of one picture a line"):
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path}: lists no picture; write the name of one picture a line")
    ids: dict[str, None] = {}
    wrong: list[str] = []
    for name in names:
        if ".." in name or not name.isprintable() or any(character in name for character in "/\\"):
            wrong.append(f"{path}: {name!r} is no name of a picture; expected a file name without folder and ending")
        elif name in ids:
            wrong.append(f"{path}: {name!r} stands twice; every picture may stand once")
        else:
            ids[name] = None
    return list(ids), list(dict.fromkeys(wrong))


def read_numbers(folder: Path) -> list[str]:
    """The names of a folder's arrays 0.npy, 1.npy, ..., without the ending and in the order of the numbers.

    Raises:
        DataError: if the folder is missing or holds no array, or one that has no number.
    """
    return _faultless(*scan_numbers(folder))


def scan_numbers(folder: Path, others: Iterable[Path] = ()) -> tuple[list[str], list[str]]:
    """The numbers of the arrays in a folder, or in any of `others`, in order; and what is wrong with other names.

    Raises:
        DataError: if the folder is missing or cannot be listed, or there is no array.
    """
    names, wrong = [], []
    for place in (folder, *others):
        with reading(place, "a folder of arrays 0.npy, 1.npy, ..."):
            found = [path.stem for path in place.iterdir() if path.suffix == ".npy" and not path.name.startswith(".")]
        strange = [name for name in found if not (name.isascii() and name.isdecimal())]
        if not found and place is folder:
            raise DataError(f"{folder}: holds no array; expected 0.npy, 1.npy, ...; restore them")
        names += [name for name in found if name not in strange]
        wrong += [
            f"{place}: {name}.npy has no number; expected 0.npy, 1.npy, ...; number it or remove it"
            for name in sorted(strange)
        ]
    return sorted(set(names), key=lambda name: (int(name), name)), wrong


def _faultless(names: list[str], faults: list[str]) -> list[str]:
    if faults:
        raise DataError(faults[0])
    return names


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
        DataError: if the file cannot be read, the .npy does not hold components in [-1, 1], or most vectors are not
            of unit length.
    """
    return _unit(_READ_NORMALS[path.suffix](path), path)


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


def _unit(vectors: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    length = np.sqrt(np.einsum("chw,chw->hw", vectors, vectors))
    too_short = length < 0.5
    kept = length[~too_short]
    # Resizing shortens vectors where two surfaces meet, and networks are not exact; but few vectors are concerned.
    if kept.size and np.mean(np.abs(kept - 1) > 0.1) > 0.5:
        raise DataError(
            f"{path}: most normals are not of unit length (the median is {np.median(kept):.4g}); expected unit "
            f"vectors, and shorter than half where it is not annotated; mend the file"
        )
    length[too_short] = 1
    vectors /= length
    vectors[:, too_short] = 0
    return vectors


def _read_npy(path: Path) -> NDArray[Any]:
    # np.load would also unpack archives, which have other contents than a label
    with reading(path, "a NumPy array (.npy) of numbers"), path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        rest = len(file.read(1 << 20))
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: holds {array.dtype}; expected numbers")
    if rest:
        raise DataError(f"{path}: goes on after its array, of shape {array.shape}; restore the file")
    return array


def _planes(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(2, 0, 1))  # (C, H, W)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data), formats=formats) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{path}: {width} x {height} pixels; expected at most {MAX_PIXELS}: scale it down")
        if picture.format == "PNG":
            _expect_whole_png(data)
        yield picture


def _expect_whole_png(data: bytes) -> None:
    """Every chunk is there, with its check sum: PIL looks no further than what it needs to decode. Raises OSError."""
    place, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data.ljust(place + 8, b"\0"), place)
        end = place + 8 + length
        if end + 4 > len(data) or not kind.strip(b"\0"):
            raise OSError(f"the PNG is cut off after {len(data)} bytes")
        if data[end : end + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : end])):
            raise OSError(f"the check sum of the chunk at byte {place} is wrong")
        place = end + 4


def _expect_mode(path: Path, picture: Image.Image, modes: Collection[str], expected: str) -> None:
    if picture.mode not in modes:
        raise DataError(f"{path}: a picture of mode {picture.mode}; expected {expected}")


@contextmanager
def reading(path: Path | str, expected: str) -> Iterator[None]:
    """Turns every failure to read `path` into a DataError."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected {expected}") from error
    except Exception as error:  # decoders fail in as many ways as a file can be damaged
        said = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))  # in one line, the same each time
        raise DataError(
            f"{path}: cannot be read as {expected} ({type(error).__name__}: {said}); restore the file"
        ) from error
