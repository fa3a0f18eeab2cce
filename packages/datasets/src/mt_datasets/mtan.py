"""Numbered .npy files, the form in which MTAN (Liu et al., CVPR 2019) published NYUv2 and Cityscapes.

`train` and `val` hold one folder of pictures and one of each annotation; files of one picture share a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mt_core.dataset import SPLITS, Fault
from mt_core.task import Task

from .files import read_pixels, scan_numbers
from .folders import Pictures, open_pictures
from .layout import Alternatives, Annotation, Layout, expect_choice


def mtan_layout(origin: str, annotations: Mapping[str, Annotation]) -> Layout:
    """Where either of its splits keeps its files: `image`, (H, W, 3) uint8 or floats in [0, 1], and `annotations`."""
    pictures = "image/*.npy"
    return Layout("MTAN", origin, lists=pictures, pictures=pictures, annotations=annotations, read=read_pixels)


def is_mtan(folder: Path) -> bool:
    """Whether a folder is meant for this layout: it has one of the splits."""
    return any((folder / split).is_dir() for split in SPLITS)


def describe_mtan(layout: Layout) -> str:
    """What is where, for messages."""
    return layout.describe(f"{{{','.join(SPLITS)}}}/")


def open_mtan(layout: Layout, folder: Path, split: str, tasks: Sequence[Task]) -> Pictures:
    """The pictures of a split in the order of their numbers, after a look whether `tasks` have all their files.

    No list names the pictures: whatever has a number in any of the folders is one.

    Raises:
        ConfigError: if there is no such split or task.
        DataError: if a folder is missing.
        IncompleteError: if a file is missing, or has no number.
    """
    expect_choice(layout, split, tasks)
    root = folder / split
    groups = [group for task in tasks for group in layout.annotations[task.name].files]
    others = [root / _folder_of(root, group) for group in dict.fromkeys(groups)]
    ids, wrong = scan_numbers(root / "image", [other for other in others if other.is_dir()])
    return open_pictures(layout, root, layout.lists, ids, tasks, faults=[Fault(root, text) for text in wrong])


def _folder_of(root: Path, group: Alternatives) -> str:
    """The folder of an annotation that is there; the last of them where none is."""
    folders = [str(PurePosixPath(pattern).parent) for pattern in group]
    return next((name for name in folders if (root / name).is_dir()), folders[-1])
