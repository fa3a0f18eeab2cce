"""Images per second that one core reads, augments and collates, for every data set and layout.

    python benchmarks/loading.py --rate 20

One process, one thread, all tasks of each data set, its own augmentation recipe, files that the script writes itself
and that the operating system has cached. Seconds are CPU time of this process (`time.process_time`), so that other
work on the machine is not counted. The cores that keep GPUs fed follow from `--rate`, images per second that a
training step takes on one GPU: an assumption, for nothing here runs on a GPU. Put the rate of your own run there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import loading_data as data
import torch

from mt_core.augment import seeded, training_transform
from mt_core.dataset import Dataset, Samples, choose, collate
from mt_core.task import Task
from mt_datasets.cityscapes import Cityscapes
from mt_datasets.folder import Folder
from mt_datasets.nyud import NYUD
from mt_datasets.nyuv2 import NYUv2
from mt_datasets.pascal import PASCAL
from mt_datasets.rooms.dataset import Rooms

SIZES = ((448, 448), (1024, 1024))
GPUS = 8
FRAMES = 4  # of each data set, and of a batch


@dataclass(frozen=True)
class Case:
    """One data set in one layout.

    Attributes:
        native: (height, width) of its files.
        write: writes so many frames of it into a folder.
        dataset: opens such a folder.
    """

    layout: str
    native: data.Size
    write: Callable[[Path, int], None]
    dataset: Callable[[str], Dataset]


def drawn(size: data.Size) -> Case:
    """Rooms, which need no files."""
    return Case("drawn on demand", size, lambda root, frames: None, lambda root: Rooms(size=size, train=FRAMES, val=1))


CASES = (
    ("nyud", Case("NYUD_MT", data.NYU, data.write_nyud, lambda root: NYUD(root=root))),
    ("nyuv2", Case("official .mat", data.NYU, data.write_nyu_official, lambda root: NYUv2(root=root))),
    ("nyuv2", Case("MTAN", data.MTAN_NYU, data.write_mtan_nyu, lambda root: NYUv2(root=root))),
    ("nyuv2", Case("NYUD_MT", data.NYU, data.write_nyud, lambda root: NYUv2(root=root))),
    ("cityscapes", Case("official", data.CITY, data.write_cityscapes, lambda root: Cityscapes(root=root))),
    ("cityscapes", Case("MTAN", data.MTAN_CITY, data.write_mtan_cityscapes, lambda root: Cityscapes(root=root))),
    ("pascal", Case("PASCAL_MT", data.VOC, data.write_pascal, lambda root: PASCAL(root=root))),
    ("folder", Case("JPEG and PNG", data.NYU, data.write_folder, lambda root: Folder(root=root))),
    ("rooms", drawn((96, 128))),
    ("rooms", drawn(data.NYU)),
)


@dataclass(frozen=True)
class Opened:
    """A case whose files exist.

    Attributes:
        loader: the data set's name.
    """

    loader: str
    case: Case
    dataset: Dataset
    tasks: tuple[Task, ...]
    samples: Samples

    def read(self, round_: int) -> None:
        """Every sample, as training reads it."""
        for index in range(FRAMES):
            self.samples[index]

    def load(self, size: data.Size, round_: int) -> None:
        """One batch, as training makes it; every round draws other augmentations."""
        recipe = training_transform(size, self.dataset.flip, self.dataset.rotation, self.dataset.zoom)
        batch = collate([recipe(self.samples[i], seeded(0, round_, i)) for i in range(FRAMES)], self.tasks)
        assert tuple(batch.images.shape) == (FRAMES, 3, *size)
        assert set(batch.labels) == {task.name for task in self.tasks}


@dataclass(frozen=True)
class Row:
    """CPU seconds of an image: read alone, and loaded at each of SIZES."""

    opened: Opened
    read: float
    loaded: tuple[float, ...]


def opened(loader: str, case: Case, root: Path) -> Opened:
    """Write the files of a case, and open them with all tasks that the data set or its copy has."""
    case.write(root, FRAMES)
    dataset = case.dataset(str(root))
    tasks = choose(dataset.tasks(), None)
    return Opened(loader, case, dataset, tasks, dataset.split("train", tasks))


def measure(cases: list[Opened], rounds: int) -> list[Row]:
    """Medians of rounds in which all cases take turns, after one that does not count."""
    steps: list[list[Callable[[int], None]]] = [
        [one.read, *(partial(one.load, size) for size in SIZES)] for one in cases
    ]
    times: list[list[list[float]]] = [[[] for _ in found] for found in steps]
    for round_ in range(rounds + 1):
        for found, kept in zip(steps, times, strict=True):
            for step, seconds in zip(found, kept, strict=True):
                start = time.process_time()
                step(round_)
                if round_:
                    seconds.append((time.process_time() - start) / FRAMES)
    medians = [[median(seconds) for seconds in kept] for kept in times]
    return [Row(one, read, tuple(loaded)) for one, (read, *loaded) in zip(cases, medians, strict=True)]


def table(rows: list[Row], rate: float) -> str:
    """Markdown: images per second and core, and the cores that feed GPUS GPUs which take `rate` images per second."""
    sizes = [f"{height} x {width}" for height, width in SIZES]
    titles = [
        *("data set", "layout", "files", "tasks", "read, ms"),
        *(f"img / s / core, {size}" for size in sizes),
        *(f"cores for {GPUS} GPUs, {size}" for size in sizes),
    ]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        case = row.opened.case
        lines.append(
            [
                *(row.opened.loader, case.layout, f"{case.native[1]} x {case.native[0]}", str(len(row.opened.tasks))),
                f"{1000 * row.read:.0f}",
                *(f"{1 / seconds:.1f}" for seconds in row.loaded),
                *(f"{GPUS * rate * seconds:.1f}" for seconds in row.loaded),
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(dict.fromkeys(name for name, _ in CASES)), metavar="NAME")
    parser.add_argument("--rate", type=float, default=20, help="images per second that one GPU trains on (assumed)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            opened(name, case, Path(folder) / str(place))
            for place, (name, case) in enumerate(CASES)
            if not arguments.only or name in arguments.only
        ]
        rows = measure(cases, arguments.rounds)
    print(table(rows, arguments.rate))
    print(f"\nCores at an assumed {arguments.rate:g} images per second and GPU (--rate). {FRAMES} images a batch.")


if __name__ == "__main__":
    main()
