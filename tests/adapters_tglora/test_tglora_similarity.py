"""Similarities equal a literal double loop over examples and parameters, and take no more memory for more examples."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mt_adapters_tglora import similarity
from mt_adapters_tglora.similarity import measure
from mt_core.dataset import Batch
from mt_core.errors import DataError
from mt_core.model import MultiTaskModel
from mt_core.task import Loss
from mt_core.tasks import Depth

from .studies import TASKS, pictures, study

depth_l1 = next(iter(Depth.losses.values()))


def literal(model: MultiTaskModel, batches: list[Batch]) -> Tensor:
    """Eq. 1 to 3, one example, one task and one parameter at a time."""
    model.eval().encoder.requires_grad_(True)
    names = list(model.tasks)
    result = torch.eye(len(names), dtype=torch.float64)
    for s, t in combinations(range(len(names)), 2):
        cosines = []
        for batch in batches:
            if not (batch.present[names[s]][0] and batch.present[names[t]][0]):
                continue
            found = []
            for name in (names[s], names[t]):
                model.zero_grad(set_to_none=True)
                model.tasks[name].loss(model(batch.images)[name], batch.labels[name]).backward()
                found.append([p.grad.clone() for p in model.encoder.parameters() if p.grad is not None])
            dot = sum(float((a.double() * b.double()).sum()) for a, b in zip(*found, strict=True))
            norms = [sum(float(g.double().square().sum()) for g in gradient) ** 0.5 for gradient in found]
            both = norms[0] + norms[1]  # eq. 2, as it is printed
            cosines.append(dot / both**2 / (norms[0] / both) / (norms[1] / both))
        result[s, t] = result[t, s] = sum(cosines) / len(cosines)
    return result


def test_it_is_the_literal_double_loop() -> None:
    absent = [(1, "depth"), (3, "semseg"), (3, "normals")]
    measured = measure(study(), pictures(5, absent=absent))
    assert_close(measured.similarity, literal(study(), pictures(5, absent=absent)), atol=1e-6, rtol=1e-6)
    assert measured.examples == 5
    assert measured.pairs.tolist() == [[4, 3, 4], [3, 4, 3], [4, 3, 4]]


def test_dropout_and_stochastic_depth_are_off_and_all_of_the_encoder_counts() -> None:
    model = study()
    model.train()
    first, again = (measure(model, pictures(2)).similarity for _ in range(2))
    assert torch.equal(first, again)
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_larger_batch_is_the_same_examples() -> None:
    one, two = pictures(2)
    both = Batch(
        one.ids + two.ids,
        torch.cat([one.images, two.images]),
        {name: torch.cat([x, two.labels[name]]) for name, x in one.labels.items()},
        {name: torch.cat([x, two.present[name]]) for name, x in one.present.items()},
    )
    assert_close(measure(study(), [both]).similarity, measure(study(), [one, two]).similarity)


class Opposite(Depth):
    """Wants what depth does not."""

    losses: ClassVar[Mapping[str, Loss]] = {"negated": lambda logits, target: -depth_l1(logits, target)}


def test_a_task_is_alike_with_its_twin_and_in_conflict_with_its_opposite() -> None:
    tasks = (Depth("depth"), Depth("twin"), Opposite("opposite"))
    model, batches = study(tasks), pictures(2, tasks)
    for name in ("twin", "opposite"):
        model.decoders[name].load_state_dict(model.decoders["depth"].state_dict())
    for batch in batches:
        batch.labels = dict.fromkeys(batch.labels, batch.labels["depth"])
    expected = torch.tensor([[1, 1, -1], [1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert_close(measure(model, batches).similarity, expected)


def test_a_gradient_of_zeros_has_similarity_0() -> None:
    batches = pictures(2)
    for batch in batches:
        batch.labels["depth"] = pictures(1, absent=[(0, "depth")])[0].labels["depth"]  # there, but all of it void
    found = measure(study(), batches).similarity
    assert found[0, 1] == found[1, 2] == 0
    assert found[0, 2] != 0
    assert found[1, 1] == 1


def test_gradients_of_earlier_examples_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[weakref.ref[Tensor]]] = []
    original = similarity._gradients

    def watched(*args: object) -> object:
        assert not any(reference() is not None for references in seen for reference in references)
        gradients = original(*args)  # type: ignore[arg-type]
        assert len(gradients) == len(TASKS)
        seen.append([weakref.ref(part) for parts in gradients for part in parts if part is not None])
        return gradients

    def stream() -> Iterator[Batch]:
        passed: list[weakref.ref[Batch]] = []
        for seed in range(4):
            assert not any(reference() is not None for reference in passed[:-1])
            batch = pictures(1, seed=seed)[0]
            passed.append(weakref.ref(batch))
            yield batch
            del batch

    monkeypatch.setattr(similarity, "_gradients", watched)
    assert measure(study(), stream()).examples == len(seen) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_names_sample_and_task(value: float) -> None:
    batches = pictures(3)
    batches[2].images[0, 0, 0, 0] = value
    with pytest.raises(DataError, match=r"sample picture-2: the gradient of semseg's loss .* is not finite"):
        measure(study(), batches)


def test_two_tasks_that_never_have_labels_together_are_refused() -> None:
    absent = [(0, "depth"), (1, "normals")]
    with pytest.raises(DataError, match="none of 2 samples has labels of both depth and normals, so their similarity"):
        measure(study(), pictures(2, absent=absent))
