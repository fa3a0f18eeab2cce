"""Which pictures a step sees, and how they get there. Both are functions of the seed and the step alone.

The number of workers changes nothing, and a run that is taken up at step k sees what it would have seen.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Image

from mt_core.augment import Transform, seeded
from mt_core.dataset import Batch, Dataset, IncompleteError, Sample, Samples, collate, name_of
from mt_core.errors import DataError, MTError
from mt_core.task import Task

from .ranks import ALONE, Ranks
from .recipe import OnBadSample, RunningOptions
from .signals import die_with

log = logging.getLogger(__name__)

Key = tuple[int, int]  # place in the stream of training pictures, index in the data set

UNLIMITED = 1 << 22  # so many pictures are drawn at random instead of permuted
_ORDER, _AUGMENTATION, _MODEL = 0, 1, 2  # keep the uses of a seed apart


@dataclass(frozen=True)
class Order:
    """The endless stream of training pictures: one permutation after the other.

    Attributes:
        count: pictures in the data set; from `UNLIMITED` on they are drawn independently.
        seed: of the permutations.
    """

    count: int
    seed: int

    def __getitem__(self, position: int) -> int:
        """The index of the picture at a place in the stream."""
        epoch, place = divmod(position, self.count)
        if self.count >= UNLIMITED:
            return _number(self.seed, _ORDER, position) % self.count
        return int(_permutation(self.count, self.seed, epoch)[place])

    def batch(self, start: int, size: int) -> list[Key]:
        """The keys of a batch that starts at a place in the stream."""
        return [(position, self[position]) for position in range(start, start + size)]


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=seeded(seed, _ORDER, epoch))


def derived_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of what is random inside the model at a step, on one rank: dropout, stochastic depth."""
    return _number(seed, _MODEL, step, *([rank] if rank else [])) >> 1


def start_generators(seed: int) -> None:
    """Start every generator that a model may draw from, of torch on all devices, of Python and of NumPy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))


def _number(*key: int) -> int:
    """64 random bits that follow from a key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Failure:
    """An error that travels from a worker in the place of what was asked for, so that its message stays whole."""

    error: MTError


@dataclass
class Unusable(Sample):
    """Stands in the place of a picture that cannot be used: black and without annotations.

    It enters no loss and no metric, and follows from the picture alone, whoever reads it.
    """

    reason: str = ""


@dataclass(frozen=True)
class Prepared:
    """Samples, transformed; the chance of a transform follows from the seed and the key."""

    samples: Samples
    transform: Transform
    seed: int
    on_bad_sample: OnBadSample = OnBadSample.stop

    def __getitem__(self, key: Key) -> Sample | Failure:
        position, index = key
        try:
            return self.transform(self.samples[index], seeded(self.seed, _AUGMENTATION, position, index))
        except MTError as error:
            if self.on_bad_sample is OnBadSample.skip and isinstance(error, DataError):
                return self._stand_in(index, error)
            return Failure(error)

    def _stand_in(self, index: int, error: DataError) -> Unusable:
        black = Sample(name_of(self.samples, index), Image(torch.zeros(3, 8, 8, dtype=torch.uint8)))
        sized = self.transform(black, seeded(0))
        return Unusable(black.id, sized.image, reason=str(error))


def open_samples(dataset: Dataset, split: str, tasks: Sequence[Task], options: RunningOptions) -> Samples:
    """A split; with `skip`, pictures that lack files are in it, and fail when they are read.

    Raises:
        DataError: if it cannot be opened, or more pictures lack files than may be skipped.
    """
    try:
        return dataset.split(split, tasks)
    except IncompleteError as error:
        if options.on_bad_sample is OnBadSample.stop or not all(fault.id for fault in error.faults):
            raise
        note_skipped({}, {fault.id: fault.message for fault in error.faults}, split, options)
        return error.samples


def note_skipped(known: dict[str, str], found: Mapping[str, str], split: str, options: RunningOptions) -> None:
    """Put pictures that are skipped to those that were before; each new one is logged.

    Raises:
        DataError: if they are more than may be.
    """
    for name, reason in found.items():
        if name in known:
            continue
        if len(known) >= options.max_bad_samples:
            raise DataError(
                f"{reason}. Picture {name} of split {split} cannot be used, and {len(known)} were skipped before it, "
                f"which is all that trainer.max_bad_samples={options.max_bad_samples} allows; mend the data set (mtrun "
                f"data verify lists every fault), or raise the limit"
            )
        known[name] = reason
        log.warning("%s. Picture %s of split %s is skipped, as number %d", reason, name, split, len(known))


def training_batches(
    samples: Samples,
    transform: Transform,
    tasks: Sequence[Task],
    options: RunningOptions,
    seed: int,
    device: torch.device,
    starts: range,
    ranks: Ranks = ALONE,
) -> Generator[Batch, None, None]:
    """The batches that start at these places in the stream; of each, the part of this rank.

    Close it: workers end with it, not with the process.

    Raises:
        DataError: if a picture or a label cannot be used.
    """
    order = Order(len(samples), seed)
    part = options.batch_size // ranks.world
    keys = (order.batch(start + ranks.rank * part, part) for start in starts)
    return _load(Prepared(samples, transform, seed, options.on_bad_sample), keys, tasks, options, device, ranks)


def evaluation_batches(
    samples: Samples,
    transform: Transform,
    tasks: Sequence[Task],
    options: RunningOptions,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Generator[Batch, None, None]:
    """Every picture once, in order; or the first `options.eval_batches` batches. Close it, as the training batches.

    Batches are what a single process would see; with several ranks, each is whole on one of them, dealt out in turn.

    Raises:
        DataError: if a picture or a label cannot be used.
    """
    size, count = options.batch_size, evaluated_pictures(samples, options)
    mine = range(ranks.rank * size, count, ranks.world * size)
    keys = ([(i, i) for i in range(start, min(start + size, count))] for start in mine)
    return _load(Prepared(samples, transform, 0, options.on_bad_sample), keys, tasks, options, device, ranks)


def evaluated_pictures(samples: Samples, options: RunningOptions) -> int:
    """How many pictures of a split are evaluated."""
    return min(
        len(samples), len(samples) if options.eval_batches is None else options.eval_batches * options.batch_size
    )


def worker_count(options: RunningOptions, ranks: Ranks = ALONE) -> int:
    """How many processes read pictures for this one."""
    share = (os.cpu_count() or 1) // ranks.local_world
    return max(0, min(4, share - 1)) if options.workers is None else options.workers


def _load(
    prepared: Prepared,
    keys: Iterator[list[Key]],
    tasks: Sequence[Task],
    options: RunningOptions,
    device: torch.device,
    ranks: Ranks,
) -> Generator[Batch, None, None]:
    loader: DataLoader[Batch | Failure] = DataLoader(
        prepared,  # type: ignore[arg-type]  # a mapping from keys to samples
        batch_sampler=_Keys(keys),
        num_workers=worker_count(options, ranks),
        collate_fn=partial(_collate, tasks=tuple(tasks)),
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_alone,
    )
    for batch in loader:
        if isinstance(batch, Failure):
            raise batch.error
        yield batch


class _Keys:
    """Lists of keys, as `DataLoader` wants them: iterated once."""

    def __init__(self, keys: Iterator[list[Key]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return self.keys


def _collate(items: Sequence[Sample | Failure], tasks: Sequence[Task]) -> Batch | Failure:
    samples = []
    for item in items:
        if isinstance(item, Failure):
            return item
        samples.append(item)
    batch = collate(samples, tasks)
    return replace(batch, skipped={item.id: item.reason for item in samples if isinstance(item, Unusable)})


def _leave_signals_alone(worker: int) -> None:
    """Whom it reads for decides when to stop: a signal to the whole group must not end a worker first."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    die_with(parent.pid or 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
