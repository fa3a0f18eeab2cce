"""A user's own pictures: a folder for each task, and a small YAML file that says what they hold. No code is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt_core.dataset import SPLITS, Dataset, Fault, Samples
from mt_core.errors import DataError
from mt_core.task import Task

from .description import SPLIT, Description, read_description
from .files import read_picture, read_pixels, reading, scan_ids
from .folders import contents, lacking, open_pictures, open_root
from .layout import Layout, expect_choice


@dataclass(kw_only=True)
class Folder(Dataset):
    """Whatever a folder holds, as its description says: any tasks of the built-in kinds.

    Attributes:
        root: the folder.
        file: the description in it, a YAML file; what it may say is told in the documentation of data.
    """

    root: str = ""
    file: str = "dataset.yaml"

    @property
    def image_size(self) -> tuple[int, int]:  # type: ignore[override]  # of an object, not of the class
        """As the description says. Raises DataError."""
        return self._described()[1].image_size

    def tasks(self) -> Mapping[str, Task]:
        """Every task that the description names. Raises DataError if it cannot be used."""
        return self._described()[1].tasks

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        folder, description = self._described()
        expect_choice(self._layout(description, "*"), name, tasks)
        layout = self._layout(description, name)
        names, wrong = _names(folder, description, name, tasks)
        faults = [Fault(folder / layout.lists, text) for text in wrong]
        return open_pictures(layout, folder, layout.lists, names, tasks, faults=faults)

    def notes(self, tasks: Sequence[Task]) -> list[str]:
        folder, description = self._described()
        found: list[str] = []
        for split in SPLITS:
            layout = self._layout(description, split)
            if (folder / layout.lists).exists():
                names, _ = _names(folder, description, split, tasks)
                found += lacking(layout, folder, names, tasks, split)
        return found

    def _described(self) -> tuple[Path, Description]:
        folder = open_root(self.root, f"which {self.file} says what its files hold")
        path = folder / self.file
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, but {contents(folder)}; write one that names the tasks, for example: "
                f"tasks: {{depth: {{kind: depth, files: depth/*.png, scale: 0.001}}}}"
            )
        return folder, read_description(path)

    def _layout(self, description: Description, split: str) -> Layout:
        images = description.images.replace(SPLIT, split)
        annotations = {
            task: replace(annotation, files=((annotation.files[0][0].replace(SPLIT, split),),))
            for task, annotation in description.annotations.items()
        }
        return Layout(
            name=self.file,
            origin="",
            lists=description.splits.get(split, images.rpartition("/")[0]),
            pictures=images,
            annotations=annotations,
            read=read_pixels if images.endswith(".npy") else read_picture,
        )


def _names(folder: Path, description: Description, split: str, tasks: Sequence[Task]) -> tuple[list[str], list[str]]:
    """The pictures of a split, and what is wrong with its list.

    They are those on its list. Without lists, whatever has a file in one of the folders of the split is one.
    """
    if description.splits:
        return scan_ids(folder / description.splits[split])
    images = description.images.replace(SPLIT, split)
    names = _matching(folder, images)
    if not names:
        where, _, pattern = images.rpartition("/")
        raise DataError(f"{folder / where}: holds no picture {pattern}, but {contents(folder / where)}; add some")
    for task in tasks:
        pattern = description.annotations[task.name].files[0][0]
        if SPLIT in pattern and (folder / pattern.replace(SPLIT, split)).parent.is_dir():
            names |= _matching(folder, pattern.replace(SPLIT, split))
    return sorted(names), []


def _matching(folder: Path, pattern: str) -> set[str]:
    """What stands in the place of `*`, of all files that match. Raises DataError if the folder cannot be listed."""
    where, _, name = pattern.rpartition("/")
    before, after = name.split("*")
    with reading(folder / where, f"a folder of files {name}"):
        files = [path.name for path in (folder / where).iterdir() if not path.name.startswith(".")]
    fitting = [file for file in files if file.startswith(before) and file.endswith(after)]
    return {file[len(before) : len(file) - len(after)] for file in fitting if len(file) > len(before) + len(after)}
