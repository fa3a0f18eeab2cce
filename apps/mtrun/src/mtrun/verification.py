"""Verification: every file of a data set is read, and everything that is wrong is listed, each with its file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader

from mt_core.dataset import Dataset, Fault, IncompleteError, Samples
from mt_core.errors import ConfigError, DataError
from mt_core.task import Task

from .data import _leave_signals_alone as leave_signals_alone
from .inspection import Contents, Finding, Inspector, Problem

Watch = Callable[[str, int, int, int], None]  # told of the split, pictures looked at, pictures in all, problems so far


@dataclass
class Totals:
    """What the annotations of one task hold, in one split.

    Attributes:
        pictures: that have the annotation.
        emptiest: the picture with the least of it annotated, and its void share.
    """

    pictures: int = 0
    pixels: int = 0
    void: int = 0
    counts: list[int] = field(default_factory=list)
    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    values: int = 0
    emptiest: tuple[str, float] = ("", -1.0)

    def add(self, name: str, found: Contents) -> None:
        """Take in one annotation."""
        self.pictures, self.pixels, self.void = self.pictures + 1, self.pixels + found.pixels, self.void + found.void
        size = max(len(self.counts), len(found.counts))
        self.counts = [sum(row[i] for row in (self.counts, found.counts) if i < len(row)) for i in range(size)]
        if found.values:
            self.low, self.high = min(self.low, found.low), max(self.high, found.high)
            self.total, self.values = self.total + found.total, self.values + found.values
        self.emptiest = max(self.emptiest, (name, found.void / found.pixels), key=lambda entry: entry[1])

    def to_json(self, task: Task) -> dict[str, Any]:
        """Shares of pixels, and the range of values where there are no classes."""
        value: dict[str, Any] = {"kind": task.kind, "pictures": self.pictures}
        if self.pictures:
            value["void"] = self.void / self.pixels
            value["emptiest"] = {"id": self.emptiest[0], "void": self.emptiest[1]}
        if annotated := sum(self.counts):
            names = task.classes or [str(i) for i in range(len(self.counts))]
            value["classes"] = {name: count / annotated for name, count in zip(names, self.counts, strict=True)}
        if self.values:
            value["range"] = {"min": self.low, "mean": self.total / self.values, "max": self.high}
        return value


@dataclass
class Verified:
    """What was found in one split."""

    split: str
    tasks: dict[str, Task]
    listed: int = 0
    looked_at: int = 0
    unusable: set[str] = field(default_factory=set)
    sizes: Counter[str] = field(default_factory=Counter)
    totals: dict[str, Totals] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    digests: dict[str, Finding] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def add(self, found: Finding) -> None:
        """Take in one picture."""
        self.looked_at += 1
        if found.size is not None:
            self.sizes[f"{found.size[1]} x {found.size[0]}"] += 1
            if (twin := self.digests.setdefault(found.digest, found)) is not found:
                self.problems.append(_twins(found, self.split, twin, self.split, is_error=False))
        if found.id in self.ids:
            message = f"{found.where or found.id}: another picture of split {self.split} has the id {found.id!r} too"
            self.problems.append(Problem(f"{message}; rename one of them", self.split, found.id, file=found.file))
        self.ids.add(found.id)
        for name, contents in found.contents.items():
            self.totals.setdefault(name, Totals()).add(found.id, contents)
        self.problems += found.problems
        if any(problem.is_error for problem in found.problems):
            self.unusable.add(found.id)

    def to_json(self) -> dict[str, Any]:
        """Numbers only; the problems are told elsewhere."""
        return {
            "listed": self.listed,
            "looked_at": self.looked_at,
            "unusable": len(self.unusable),
            "sizes": dict(self.sizes.most_common(20)),
            "tasks": {name: self.totals.get(name, Totals()).to_json(task) for name, task in self.tasks.items()},
        }


def verify(
    dataset: Dataset,
    tasks: Sequence[Task],
    splits: Sequence[str],
    workers: int | None = None,
    pictures: int | None = None,
    watch: Watch = lambda *_: None,
) -> list[Verified]:
    """Look at every picture and annotation of some splits.

    Args:
        tasks: whose annotations are read.
        workers: processes that read; None for one per processor.
        pictures: look at the first so many of each split only.
        watch: told how far it is.

    Raises:
        ConfigError: if there is no such split.
        DataError: if a process that reads is killed.
    """
    found = [_verify_split(dataset, tasks, split, workers, pictures, watch) for split in splits]
    known: dict[str, tuple[str, Finding]] = {}
    for verified in found:
        for digest, picture in verified.digests.items():
            split, twin = known.setdefault(digest, (verified.split, picture))
            if split != verified.split:
                verified.problems.append(_twins(picture, verified.split, twin, split, is_error=True))
    told: set[str] = set()
    for verified in found:  # a root that cannot be used is the same problem in every split
        verified.problems = list({p.message: p for p in verified.problems if p.message not in told}.values())
        told.update(p.message for p in verified.problems)
    return found


def _verify_split(
    dataset: Dataset, tasks: Sequence[Task], split: str, workers: int | None, pictures: int | None, watch: Watch
) -> Verified:
    verified = Verified(split, {task.name: task for task in tasks})
    inspector, faults = _open(dataset, tasks, split, verified.problems)
    verified.listed = len(inspector)
    if not len(inspector) and not verified.problems:
        verified.problems.append(Problem(f"split {split!r} has no picture; add some", split))
    told = {(fault.id, str(fault.file)) for fault in faults}
    count = len(inspector) if pictures is None else min(pictures, len(inspector))
    for fault in faults:
        verified.problems.append(Problem(fault.message, split, fault.id, fault.task, str(fault.file)))
        if fault.id:
            verified.unusable.add(fault.id)
    with closing(_look_at(inspector, range(count), workers)) as findings:
        for number, finding in enumerate(findings, start=1):
            finding.problems = [p for p in finding.problems if (p.id, p.file) not in told]
            verified.add(finding)
            watch(split, number, count, len(verified.problems))
    return verified


def _open(
    dataset: Dataset, tasks: Sequence[Task], split: str, problems: list[Problem]
) -> tuple[Inspector, list[Fault]]:
    """The split with each annotation alone and with all that can be opened; what cannot be opened is a problem."""
    apart: dict[str, Samples] = {}
    faults: dict[Fault, None] = {}
    messages: set[str] = set()

    def opened(wanted: Sequence[Task]) -> Samples | None:
        try:
            return dataset.split(split, wanted)
        except ConfigError:
            raise
        except IncompleteError as error:
            faults.update(dict.fromkeys(error.faults))
            return error.samples
        except Exception as error:  # noqa: BLE001 - a stranger's data set may raise anything
            message = str(error) if isinstance(error, DataError) else f"split {split}: {type(error).__name__}: {error}"
            if message not in messages:
                messages.add(message)
                problems.append(Problem(message, split, task=wanted[0].name if len(wanted) == 1 else ""))
            return None

    for wanted in ((), *((task,) for task in tasks)):
        if (samples := opened(wanted)) is not None:
            apart[wanted[0].name if wanted else ""] = samples
    together = opened([task for task in tasks if task.name in apart]) if apart else None
    count = max((len(samples) for samples in (*apart.values(), together) if samples is not None), default=0)
    return Inspector(split, {task.name: task for task in tasks}, together, apart, count), list(faults)


def _look_at(inspector: Inspector, indices: range, workers: int | None) -> Generator[Finding, None, None]:
    """The findings in order, made by several processes."""
    wanted = (os.cpu_count() or 1) if workers is None else workers
    loader: DataLoader[Finding] = DataLoader(
        inspector,  # type: ignore[arg-type]  # it has a length and items
        batch_size=None,
        sampler=indices,
        num_workers=min(wanted, len(indices) // 2),
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # without batches it is called for every item
        worker_init_fn=leave_signals_alone,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"split {inspector.split}: a process that reads pictures was killed ({error}); it may lack memory: "
            f"take fewer with workers=1, or none with workers=0"
        ) from error


def _as_it_is(found: Finding) -> Finding:
    return found


def _twins(found: Finding, split: str, twin: Finding, other: str, is_error: bool) -> Problem:
    where = f"{twin.where or twin.id} of split {other}"
    message = f"{found.where or found.id}: the same picture as {where}; "
    advice = "evaluation would measure what was trained on: take it out of one" if split != other else "look at both"
    return Problem(message + advice, split, found.id, file=found.file, is_error=is_error)
