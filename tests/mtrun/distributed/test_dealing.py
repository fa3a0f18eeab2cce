"""How pictures are dealt out to ranks: none twice, none lost, the same global batches for any number of ranks."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt_core.augment import evaluation_transform
from mt_core.build import Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.errors import DataError
from mt_core.protocols import protocol
from mtrun.data import derived_seed, evaluation_batches, training_batches, worker_count
from mtrun.evaluation import evaluate, rounds_of
from mtrun.ranks import Ranks
from mtrun.recipe import RunningOptions

from ..toy import Toy

CPU = torch.device("cpu")
TASKS = tuple(Toy().tasks().values())[1:2]
SAME = evaluation_transform((32, 40))


def training(world: int, rank: int, starts: range = range(0, 12, 4), count: int = 6) -> list[Batch]:
    samples, options = Toy(count=count).split("train", TASKS), RunningOptions(batch_size=4, workers=0)
    with closing(training_batches(samples, SAME, TASKS, options, 3, CPU, starts, Ranks(rank, world, world))) as found:
        return list(found)


@pytest.mark.parametrize("world", [2, 4])
def test_the_parts_of_all_ranks_are_the_batches_of_a_single_process(world: int) -> None:
    dealt = [training(world, rank) for rank in range(world)]
    for whole, *parts in zip(training(1, 0), *dealt, strict=True):
        assert whole.ids == [name for part in parts for name in part.ids]
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.labels["depth"], torch.cat([part.labels["depth"] for part in parts]))


def test_a_run_taken_up_by_more_ranks_sees_what_was_left() -> None:
    whole = training(1, 0)[1:]
    rest = [training(2, rank, range(4, 12, 4)) for rank in range(2)]
    assert [batch.ids for batch in whole] == [one.ids + two.ids for one, two in zip(*rest, strict=True)]


def test_what_is_random_inside_the_model_differs_between_ranks_and_steps() -> None:
    seeds = {derived_seed(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)}
    assert len(seeds) == 27
    assert derived_seed(1, 2) == derived_seed(1, 2, 0)


def test_ranks_on_a_host_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [worker_count(RunningOptions(), Ranks(0, n, n)) for n in (1, 2, 4, 8, 16)] == [4, 3, 1, 0, 0]
    assert worker_count(RunningOptions(workers=3), Ranks(0, 16, 16)) == 3


def evaluation(count: int, size: int, ranks: Ranks, limit: int | None = None) -> list[list[str]]:
    samples = Toy(count=count).split("val", TASKS)
    options = RunningOptions(batch_size=size, workers=0, eval_batches=limit)
    with closing(evaluation_batches(samples, SAME, TASKS, options, CPU, ranks)) as found:
        return [batch.ids for batch in found]


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.none() | st.integers(1, 3))
def test_an_evaluation_deals_out_every_picture_once(count: int, size: int, world: int, limit: int | None) -> None:
    dealt = [evaluation(count, size, Ranks(rank, world, world), limit) for rank in range(world)]
    alone = evaluation(count, size, Ranks(), limit)
    assert sorted(batch for part in dealt for batch in part) == sorted(alone)
    pictures = sum(map(len, alone))
    assert pictures == min(count, count if limit is None else limit * size)
    assert max(map(len, dealt)) == rounds_of(pictures, size, Ranks(0, world, world))


@dataclass(frozen=True)
class Several(Ranks):
    """Ranks that are played one after the other; `others` holds what those before have said, in turn."""

    said: list[Any] = field(default_factory=list)

    def agree(self, error: BaseException | None = None) -> None:
        if error is not None:
            raise error

    def gather(self, value: Any) -> list[Any]:
        self.said.append(value)
        return [value]

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        self.said.append(x.clone())
        return x


def test_a_rank_without_a_batch_calls_the_model_as_often_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures, batches of two, three ranks: the third has none, and all call the model once."""
    spec = ModelSpec(
        Entry("swin_nano"), Entry("frozen"), Entry("hrnet"), tuple(t.to_json() for t in TASKS), (32, 40)
    )  # fmt: skip
    model = build(spec).model
    monkeypatch.setattr("torchmetrics.Metric.compute", lambda self: torch.tensor(0.0))
    calls, counted = [], []
    for rank in range(3):
        ranks = Several(rank, 3, 3)
        samples, options = Toy(count=3).split("val", TASKS), RunningOptions(batch_size=2, workers=0)

        def logits(images: torch.Tensor, rank: int = rank) -> dict[str, torch.Tensor]:
            calls.append((rank, len(images)))
            return {"depth": torch.ones(len(images), 1, 32, 40)}

        batches = evaluation_batches(samples, SAME, TASKS, options, CPU, ranks)
        found = evaluate(
            model, batches, protocol("astmt"), CPU, logits=logits, rounds=rounds_of(3, 2, ranks), ranks=ranks
        )
        counted.append(found.images)
    assert calls == [(0, 2), (1, 1), (2, 1)]
    assert counted == [2, 1, 0]


def test_what_a_rank_cannot_read_ends_the_evaluation() -> None:
    samples, options = Toy(count=2, broken=1).split("train", TASKS), RunningOptions(batch_size=1, workers=0)
    spec = ModelSpec(
        Entry("swin_nano"), Entry("frozen"), Entry("hrnet"), tuple(t.to_json() for t in TASKS), (32, 40)
    )  # fmt: skip
    batches = evaluation_batches(samples, SAME, TASKS, options, CPU, Several(1, 2, 2))
    with pytest.raises(DataError, match="toy-1: damaged; draw it again"):
        evaluate(build(spec).model, batches, protocol("astmt"), CPU, rounds=1, ranks=Several(1, 2, 2))
