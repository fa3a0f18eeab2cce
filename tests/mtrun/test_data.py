"""Which pictures a step sees: a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from mt_core.augment import training_transform
from mt_core.dataset import Batch
from mt_core.errors import DataError
from mtrun.data import UNLIMITED, Order, derived_seed, evaluation_batches, training_batches, worker_count
from mtrun.progress import Progress, step_count
from mtrun.recipe import RunningOptions, TrainerOptions

from .toy import Toy

CPU = torch.device("cpu")
TASKS = tuple(Toy().tasks().values())
TRANSFORM = training_transform((32, 40), zoom=(1.0, 1.5), rotation=10.0, jitter=0.2)


def batches(numbers: range, workers: int = 0, seed: int = 0, **options: int) -> Iterator[Batch]:
    samples = Toy(**options).split("train", TASKS)
    running = RunningOptions(batch_size=4, workers=workers)
    starts = range(4 * numbers.start, 4 * numbers.stop, 4)
    return training_batches(samples, TRANSFORM, TASKS, running, seed, CPU, starts)


def assert_same(a: Batch, b: Batch) -> None:
    assert a.ids == b.ids
    assert torch.equal(a.images, b.images)
    assert all(torch.equal(a.labels[name], b.labels[name]) for name in a.labels)


def test_every_epoch_is_a_new_permutation() -> None:
    order = Order(10, seed=3)
    epochs = [[order[position] for position in range(e * 10, e * 10 + 10)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_another_seed_is_another_order() -> None:
    assert [Order(50, 0)[i] for i in range(50)] != [Order(50, 1)[i] for i in range(50)]


def test_an_unlimited_data_set_is_drawn_from_without_a_permutation_in_memory() -> None:
    order = Order(UNLIMITED * 1000, seed=0)
    drawn = [order[position] for position in range(1000)]
    assert len(set(drawn)) > 990
    assert max(drawn) > UNLIMITED * 900
    assert drawn == [Order(UNLIMITED * 1000, seed=0)[position] for position in range(1000)]


def test_a_batch_may_run_over_the_end_of_an_epoch() -> None:
    order = Order(6, seed=0)
    indices = [index for number in range(3) for _, index in order.batch(4 * number, 4)]
    assert sorted(indices[:6]) == sorted(indices[6:]) == list(range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_taken_up_at_batch_k_sees_what_it_would_have_seen(workers: int) -> None:
    whole = list(batches(range(6)))
    rest = list(batches(range(3, 6), workers))
    for a, b in zip(whole[3:], rest, strict=True):
        assert_same(a, b)


def test_a_picture_is_varied_anew_in_every_epoch() -> None:
    first, _, _, second = islice(batches(range(4), count=4), 4)
    same = {name: i for i, name in enumerate(second.ids)}
    assert any(not torch.equal(x, second.images[same[name]]) for name, x in zip(first.ids, first.images, strict=True))


def test_evaluation_sees_every_picture_once_in_order() -> None:
    samples = Toy(count=7).split("val", TASKS)
    found = evaluation_batches(samples, TRANSFORM, TASKS, RunningOptions(batch_size=3, workers=2), CPU)
    assert [batch.ids for batch in found] == [[f"toy-{i}" for i in part] for part in ([0, 1, 2], [3, 4, 5], [6])]


def test_evaluation_can_stop_after_some_batches() -> None:
    samples = Toy(count=7).split("val", TASKS)
    options = RunningOptions(batch_size=3, workers=0, eval_batches=2)
    assert sum(len(batch.ids) for batch in evaluation_batches(samples, TRANSFORM, TASKS, options, CPU)) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        list(batches(range(2), workers, broken=1))
    assert str(caught.value) == "toy-1: damaged; draw it again"


def test_the_seed_of_a_step_differs_from_step_to_step() -> None:
    assert len({derived_seed(seed, step) for seed in range(10) for step in range(100)}) == 1000


def test_workers_are_at_most_four_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert worker_count(RunningOptions()) == 4
    assert worker_count(RunningOptions(workers=9)) == 9
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert worker_count(RunningOptions()) == 0


@pytest.mark.parametrize(
    ("max_steps", "epochs", "expected"), [(None, None, 1000), (7, None, 7), (None, 3, 8), (5, 3, 5), (50, 3, 8)]
)
def test_a_run_is_as_long_as_steps_and_epochs_allow(max_steps: int | None, epochs: int | None, expected: int) -> None:
    options = TrainerOptions(max_steps=max_steps, epochs=epochs, batch_size=2, accumulate=2)
    assert step_count(options, 10) == expected
    assert step_count(options, 10, Progress(step=3, position=12)) == expected


def test_a_run_that_goes_on_with_larger_batches_takes_fewer_steps_for_what_is_left() -> None:
    options = TrainerOptions(epochs=3, batch_size=9)
    assert step_count(options, 10, Progress(step=3, position=12)) == 3 + 2
