"""Single files: what is read of sound ones, and what is said of damaged ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mt_core.errors import DataError
from mt_datasets import files

from .layouts import rectangle, write_mat, write_npy, write_parts, write_picture, write_png

SIZE = (12, 16)


def raw_png(depth: int, colour_type: int, width: int, height: int, rows: bytes) -> bytes:
    """A PNG of any bit depth and any claimed size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_list_names_one_picture_a_line_and_blanks_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf0001\r\n\n  0002 \n\n2008_000003")
    assert files.read_ids(tmp_path / "train.txt") == ["0001", "0002", "2008_000003"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no picture"),
        (b" \n\n", "lists no picture"),
        (b"0001\n0002\n0001\n", "'0001' stands twice; every picture may stand once"),
        (b"../0001\n", r"'\.\./0001' is no name of a picture"),
        (b"..\n", r"'\.\.' is no name of a picture"),
        (b"a/b\n", "'a/b' is no name of a picture"),
        (b"a\\b\n", "is no name of a picture"),
        (b"a\0b\n", "is no name of a picture"),
        (b"\xff\xfe0001\n", "cannot be read as a UTF-8 text .*UnicodeDecodeError.*restore the file"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"train.txt: .*{message}"):
        files.read_ids(tmp_path / "train.txt")


def test_a_greyscale_photograph_is_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full(SIZE, 128, np.uint8)).save(tmp_path / "a.jpg")
    picture = files.read_picture(tmp_path / "a.jpg")
    assert picture.shape == (3, *SIZE)
    assert picture.dtype == np.uint8
    assert (picture == 128).all()


def test_numbered_arrays_are_named_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10.npy", "9.npy", "0.npy", "2.npy", ".9.npy", "._0.npy", "notes.txt"):
        (tmp_path / name).touch()
    assert files.read_numbers(tmp_path) == ["0", "2", "9", "10"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no array; expected 0.npy, 1.npy, "),
        (["0.png"], "holds no array"),
        (["0.npy", "a1.npy"], "a1.npy has no number"),
        (["0.npy", "1 (1).npy"], r"1 \(1\).npy has no number"),
        (["0.npy", "-1.npy"], "-1.npy has no number"),
        (["0.npy", "²³.npy"], "²³.npy has no number"),
    ],
)
def test_a_folder_that_is_not_numbered_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        files.read_numbers(tmp_path)


def test_a_folder_of_arrays_that_is_missing_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"none: no such file; expected a folder of arrays 0.npy"):
        files.read_numbers(tmp_path / "none")
    with pytest.raises(DataError, match=r"file: cannot be read as a folder of arrays 0.npy"):
        files.read_numbers(tmp_path / "file")


def test_pixels_are_the_same_from_bytes_and_from_floats(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    write_npy(tmp_path / "bytes.npy", pixels)
    write_npy(tmp_path / "floats.npy", pixels / 255)
    write_npy(tmp_path / "half.npy", (pixels / 255).astype(np.float32))
    for name in ("bytes.npy", "floats.npy", "half.npy"):
        read = files.read_pixels(tmp_path / name)
        assert read.dtype == np.uint8
        assert read.flags.c_contiguous
        assert (read == pixels.transpose(2, 0, 1)).all()


def test_pixels_that_overshoot_a_little_are_cut_off(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.array([[[-0.05, 0.5, 1.05]]]))
    assert files.read_pixels(tmp_path / "a.npy").tolist() == [[[0]], [[128]], [[255]]]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_labels_of_any_type_of_number_are_classes_and_minus_1_is_void(tmp_path: Path, dtype: type) -> None:
    write_npy(tmp_path / "a.npy", np.array([[-1, 0, 12]], dtype))
    labels = files.read_labels(tmp_path / "a.npy")
    assert labels.dtype == np.int64
    assert labels.tolist() == [[255, 0, 12]]


def test_labels_of_bytes_have_255_for_void(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.array([[0, 12, 255]], np.uint8))
    assert files.read_labels(tmp_path / "a.npy").tolist() == [[0, 12, 255]]


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 1)])
def test_depth_gets_a_channel_in_front(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_npy(tmp_path / "a.npy", np.arange(192.0).reshape(shape))
    depth = files.read_depth(tmp_path / "a.npy")
    assert depth.dtype == np.float32
    assert depth.shape == (1, *SIZE)
    assert depth[0, 1, 3] == 19


@pytest.mark.parametrize("palette", [True, False])
def test_classes_are_the_indices_and_not_the_colours(tmp_path: Path, palette: bool) -> None:
    indices = np.arange(192, dtype=np.uint8).reshape(SIZE)
    write_png(tmp_path / "a.png", indices, palette=palette)
    classes = files.read_classes(tmp_path / "a.png")
    assert classes.dtype == np.int64
    assert (classes == indices).all()


def test_classes_of_16_bits_keep_their_values(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 459]], np.uint16)
    write_png(tmp_path / "a.png", indices)
    assert (files.read_classes(tmp_path / "a.png") == indices).all()


@pytest.mark.parametrize(
    ("depth", "row", "classes"),
    [(4, b"\x01\x2f", [0, 1, 2, 15]), (2, b"\x1b", [0, 1, 2, 3]), (1, b"\x60", [0, 1, 1, 0])],
)
def test_classes_packed_in_few_bits_of_grey_are_not_stretched(
    tmp_path: Path, depth: int, row: bytes, classes: list[int]
) -> None:
    (tmp_path / "a.png").write_bytes(raw_png(depth, 0, 4, 1, b"\0" + row))
    assert files.read_classes(tmp_path / "a.png").tolist() == [classes]


def test_normals_are_the_same_from_an_array_and_from_8_bits(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(*SIZE, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[:4] = 0
    write_npy(tmp_path / "a.npy", vectors)
    write_png(tmp_path / "a.png", np.rint(127.5 * (vectors + 1)).astype(np.uint8))
    exact, coded = files.read_normals(tmp_path / "a.npy"), files.read_normals(tmp_path / "a.png")
    assert exact.dtype == coded.dtype == np.float32
    assert np.abs(exact - vectors.transpose(2, 0, 1)).max() < 1e-6
    assert np.abs(coded - exact).max() < 0.01
    assert (coded[:, :4] == 0).all()
    assert np.allclose(np.linalg.norm(coded[:, 4:], axis=0), 1, atol=1e-6)


def test_normals_that_are_not_finite_are_left_for_the_task_to_refuse(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.full((*SIZE, 3), np.nan, np.float32))
    assert np.isnan(files.read_normals(tmp_path / "a.npy")).all()


def test_a_plane_may_have_a_channel_axis(tmp_path: Path) -> None:
    plane = np.arange(192.0).reshape(SIZE)
    write_npy(tmp_path / "a.npy", plane[..., None])
    assert (files.read_plane(tmp_path / "a.npy") == plane).all()


def write_bytes(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def jpeg_called_png(path: Path) -> None:
    Image.new("L", (16, 12)).save(path, format="JPEG")


def archive_called_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, depth=np.zeros(SIZE))


@pytest.mark.parametrize(
    ("name", "read", "write", "message"),
    [
        ("a.jpg", files.read_picture, lambda path: None, "no such file; expected a JPEG picture"),
        ("a.jpg", files.read_picture, lambda path: path.mkdir(), "cannot be read as a JPEG picture .IsADirectory"),
        ("a.jpg", files.read_picture, write_bytes(b""), "cannot be read as a JPEG picture .Unidentified"),
        ("a.jpg", files.read_picture, write_bytes(raw_png(8, 0, 30000, 30000, b"")), "DecompressionBomb"),
        ("a.jpg", files.read_picture, write_bytes(raw_png(8, 0, 9000, 9000, b"")), "9000 x 9000 pixels; expected at"),
        ("a.png", files.read_classes, lambda path: write_png(path, np.zeros((*SIZE, 3), np.uint8)), "mode RGB; .*one"),
        ("a.png", files.read_classes, jpeg_called_png, "cannot be read as a PNG of class indices"),
        ("a.png", files.read_grey, lambda path: write_png(path, np.zeros(SIZE, np.uint8), True), "mode P; .*greyscale"),
        ("a.png", files.read_normals, lambda path: write_png(path, np.zeros(SIZE, np.uint8)), "mode L; expected .*RGB"),
        ("a.npy", files.read_normals, lambda path: write_npy(path, np.zeros((3, *SIZE))), r"expected .*\(H, W, 3\)"),
        ("a.npy", files.read_normals, lambda path: write_npy(path, np.zeros((*SIZE, 3), int)), "int64 of .*floats"),
        ("a.npy", files.read_normals, lambda path: write_npy(path, np.full((*SIZE, 3), 255.0)), "size 255; expected"),
        ("a.npy", files.read_plane, lambda path: write_npy(path, np.zeros((*SIZE, 3))), r"\(12, 16, 3\); expected"),
        ("a.npy", files.read_plane, lambda path: write_npy(path, np.array([[None]])), "Object arrays cannot be loaded"),
        ("a.npy", files.read_plane, lambda path: write_npy(path, np.array([["a"]])), "holds <U1; expected numbers"),
        ("a.npy", files.read_plane, archive_called_npy, "cannot be read as a NumPy array"),
        ("a.npy", files.read_plane, write_bytes(b"\x93NUMPY\x01\x00"), "cannot be read as a NumPy array"),
        (
            "a.npy",
            files.read_depth,
            lambda path: write_npy(path, np.ones(SIZE, int)),
            "depth as int64; expected floats",
        ),
        (
            "a.npy",
            files.read_pixels,
            lambda path: write_npy(path, np.zeros((3, *SIZE))),
            r"\(3, 12, 16\); expected a pic",
        ),
        ("a.npy", files.read_pixels, lambda path: write_npy(path, np.zeros(SIZE)), r"\(12, 16\); expected a picture"),
        ("a.npy", files.read_pixels, lambda path: write_npy(path, np.zeros((0, 16, 3))), r"\(0, 16, 3\); expected"),
        (
            "a.npy",
            files.read_pixels,
            lambda path: write_npy(path, np.zeros((*SIZE, 3), int)),
            "int64 of .*of uint8, or",
        ),
        ("a.npy", files.read_pixels, lambda path: write_npy(path, np.full((*SIZE, 3), 255.0)), "from 255 to 255; exp"),
        ("a.npy", files.read_pixels, lambda path: write_npy(path, np.full((*SIZE, 3), np.nan)), "from nan to nan; exp"),
        ("a.npy", files.read_labels, lambda path: write_npy(path, np.full(SIZE, 0.5)), "found 0.5; expected class ind"),
        ("a.npy", files.read_labels, lambda path: write_npy(path, np.full(SIZE, np.nan)), "found nan; expected class"),
        ("a.npy", files.read_labels, lambda path: write_npy(path, np.full(SIZE, np.inf)), "found inf; expected class"),
        (
            "a.npy",
            files.read_labels,
            lambda path: write_npy(path, np.full(SIZE, -2)),
            "found -2; expected class indices",
        ),
        ("a.npy", files.read_labels, lambda path: write_npy(path, np.full(SIZE, 256)), "found 256; expected class ind"),
        ("a.mat", lambda path: files.read_mat(path, "anno"), lambda path: write_mat(path, other=1), "no variable"),
        (
            "a.mat",
            lambda path: files.read_mat(path, "anno"),
            write_bytes(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM"),
            r"cannot be read as a MATLAB file \(version 7 or older\) .NotImplemented",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, name: str, read: Callable[[Path], Any], write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        read(tmp_path / name)


WRITERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], None]]] = {
    "a.jpg": (files.read_picture, lambda path: write_picture(path, np.random.default_rng(0), SIZE)),
    "palette.png": (files.read_classes, lambda path: write_png(path, rectangle(SIZE, 2, 9), palette=True)),
    "grey.png": (files.read_grey, lambda path: write_png(path, rectangle(SIZE, 2, 9))),
    "a.npy": (files.read_plane, lambda path: write_npy(path, np.ones(SIZE))),
    "a.mat": (
        lambda path: files.read_mat(path, "anno"),
        lambda path: write_parts(path, [("person", 15, [("head", rectangle(SIZE, 2, 9))])]),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_short_is_refused_wherever_the_cut_is(tmp_path: Path, name: str) -> None:
    read, write = WRITERS[name]
    write(tmp_path / name)
    whole = read(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    end = content.find(b"IEND") - 12 if name.endswith("png") else len(content) - 2  # what follows carries no pixel
    for cut in range(0, end, 1 + len(content) // 40):
        (tmp_path / name).write_bytes(content[:cut])
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)
    assert whole.size


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_with_flipped_bytes_is_read_or_refused_but_never_crashes(tmp_path: Path, name: str) -> None:
    read, write = WRITERS[name]
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(damaged)
        try:
            read(tmp_path / name)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(name in message for message in refused)
