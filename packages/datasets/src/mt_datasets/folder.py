"""A user's own pictures: a folder for each task, and a small YAML file that says what they hold. No code is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt_core.dataset import SPLITS, Dataset, Samples
from mt_core.errors import DataError
from mt_core.task import Task

from .description import SPLIT, Description, read_description
from .files import read_ids, read_picture, read_pixels, reading
from .folders import Layout, absent_files, contents, expect_choice, open_pictures, open_root


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
        return open_pictures(layout, folder, layout.lists, _names(folder, description, name), tasks)

    def notes(self, tasks: Sequence[Task]) -> list[str]:
        folder, description = self._described()
        found = []
        for split in SPLITS:
            if not (folder / self._layout(description, split).lists).exists():
                continue
            ids = _names(folder, description, split)
            for task in tasks:
                annotation = self._layout(description, split).annotations[task.name]
                if annotation.partial and (without := absent_files(folder, ids, annotation.files)):
                    found.append(f"{task.name}: {len(without)} of {len(ids)} pictures of {split} have no file")
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


def _names(folder: Path, description: Description, split: str) -> list[str]:
    """The pictures of a split: those on its list, or else those in its folder."""
    if description.splits:
        return read_ids(folder / description.splits[split])
    where, _, pattern = description.images.replace(SPLIT, split).rpartition("/")
    before, after = pattern.split("*")
    with reading(folder / where, f"a folder of pictures {pattern}"):
        files = [path.name for path in (folder / where).iterdir() if not path.name.startswith(".")]
    found = [name for name in files if name.startswith(before) and name.endswith(after)]
    names = [name[len(before) : len(name) - len(after)] for name in found]
    if not names:
        raise DataError(f"{folder / where}: holds no picture {pattern}, but {contents(folder / where)}; add some")
    return sorted(names)
