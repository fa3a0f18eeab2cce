"""The gradient of a step whose tasks are balanced: against one backward pass for each task, literally."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt_core.errors import ConfigError
from mtrun.balancers import BALANCERS
from mtrun.balancing import balanced_gradients, refuse, split_parameters
from mtrun.recipe import TrainerOptions

from .methods import AGGREGATORS, started

TASKS = ("semseg", "depth", "normals")
BALANCED = ("fixed", "gradnorm", *AGGREGATORS)


class Toy(nn.Module):
    """Three tasks that share a trunk, two of which share a branch, each with its own head; and a parameter unused."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.trunk, self.idle = parameter(5, 4), parameter(3)
        self.branch = nn.ParameterDict({"depth+normals": parameter(4, 4)})
        self.heads = nn.ParameterDict({task: parameter(4) for task in TASKS})

    def terms(self, x: Tensor, penalty: bool = True) -> dict[str, Tensor]:
        """(N, 5) -> the means of three losses, and a regulariser."""
        features = torch.tanh(x @ self.trunk)  # (N, 4)
        branched = torch.tanh(features @ self.branch["depth+normals"])
        inputs = {"semseg": features, "depth": branched, "normals": branched}
        scales = {"semseg": 1.0, "depth": -1.0, "normals": 10.0}
        terms = {task: scales[task] * (inputs[task] @ self.heads[task]).sin().mean() for task in TASKS}
        every = torch.cat([self.trunk.flatten(), self.heads["depth"]])
        return {**terms, "penalty": 0.1 * every.square().sum()} if penalty else terms


def inputs(count: int = 8) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def alone(tensor: Tensor) -> Tensor:
    """`reduce` of a single process."""
    return tensor


def parts(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    return split_parameters(dict(model.named_parameters()), TASKS)


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def balanced(name: str, x: Tensor, reduce: Callable[[Tensor], Tensor] = alone, share: float = 1.0) -> Mapping[str, Any]:
    """The gradients that a balancer gives on a batch, of which this is one rank's share."""
    model, balancer = Toy(), started(name, TASKS)
    terms = {term: share * value for term, value in model.terms(x).items()}
    balanced_gradients(terms, *parts(model), balancer, reduce, 3)
    return gradients(model)


def literal(name: str, x: Tensor) -> dict[str, Tensor | None]:
    """The same, from one whole backward pass for each term, with zeros where a task does not reach."""
    rows: dict[str, dict[str, Tensor | None]] = {}
    for term in (*TASKS, "penalty"):
        model = Toy()
        model.terms(x)[term].backward()  # type: ignore[no-untyped-call]
        rows[term] = gradients(model)
    shared = ["trunk", "idle", "branch.depth+normals"]
    sizes = [20, 3, 16]

    def flat(term: str) -> Tensor:
        found = [(rows[term][n], size) for n, size in zip(shared, sizes, strict=True)]
        return torch.cat([torch.zeros(size).double() if g is None else g.flatten() for g, size in found])

    balancer = started(name, TASKS)
    direction = balancer.combine(torch.stack([flat(task) for task in TASKS]), 3) + flat("penalty")
    trunk, _, branch = direction.split(sizes)
    result: dict[str, Tensor | None] = {
        "trunk": trunk.view(5, 4),
        "idle": None,
        "branch.depth+normals": branch.view(4, 4),
    }
    for task, weight in zip(TASKS, balancer.weights().tolist(), strict=True):
        own, extra = rows[task][f"heads.{task}"], rows["penalty"][f"heads.{task}"]
        assert own is not None
        result[f"heads.{task}"] = weight * own + (0 if extra is None else extra)
    return result


def assert_same(found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_parameters_of_several_tasks_are_shared_and_those_of_one_are_private() -> None:
    shared, private = parts(Toy())
    assert list(shared) == ["trunk", "idle", "branch.depth+normals"]
    assert set(private) == {f"heads.{task}" for task in TASKS}


def test_the_only_task_shares_everything_with_itself() -> None:
    shared, private = split_parameters({"heads.depth": torch.zeros(1)}, ["depth"])
    assert (list(shared), list(private)) == (["heads.depth"], [])


@pytest.mark.parametrize("name", BALANCED)
def test_the_gradients_are_those_of_one_backward_pass_for_each_task(name: str) -> None:
    pytest.importorskip("torchjd")
    assert_same(balanced(name, inputs()), literal(name, inputs()))


def test_fixed_weights_give_the_gradient_of_the_sum() -> None:
    model = Toy()
    sum(model.terms(inputs()).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert_same(balanced("fixed", inputs()), gradients(model))


def test_weights_scale_the_gradients_of_private_parameters_and_not_the_penaltys() -> None:
    model, plain, balancer = Toy(), balanced("fixed", inputs()), started("gradnorm", TASKS)
    weights = {"semseg": 0.5, "depth": 2.0, "normals": 0.5}
    balancer.kept["weights"].copy_(torch.tensor(list(weights.values())))
    balanced_gradients(model.terms(inputs()), *parts(model), balancer, alone, 1)
    penalty = 0.2 * model.heads["depth"].detach()
    for task, weight in weights.items():
        extra = penalty if task == "depth" else 0
        torch.testing.assert_close(model.heads[task].grad, weight * (plain[f"heads.{task}"] - extra) + extra)


def test_gradients_are_added_to_those_that_are_there() -> None:
    model = Toy()
    before = {name: torch.full_like(p, 2.0) for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.grad = before[name].clone()
    balanced_gradients(model.terms(inputs()), *parts(model), started("mgda", TASKS), alone, 1)
    fresh = balanced("mgda", inputs())
    assert_same(gradients(model), {n: before[n] + (0 if g is None else g) for n, g in fresh.items()})


def test_where_the_penalty_stands_among_the_terms_does_not_matter() -> None:
    model = Toy()
    terms = model.terms(inputs())
    turned = {"penalty": terms["penalty"], **{task: terms[task] for task in TASKS}}
    balanced_gradients(turned, *parts(model), started("imtl_g", TASKS), alone, 3)
    assert_same(gradients(model), balanced("imtl_g", inputs()))


def test_a_regulariser_is_not_needed() -> None:
    model, other = Toy(), Toy()
    balanced_gradients(model.terms(inputs(), penalty=False), *parts(model), started("fixed", TASKS), alone, 1)
    sum(other.terms(inputs(), penalty=False).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert_same(gradients(model), gradients(other))


def test_the_trunks_graph_is_freed() -> None:
    model = Toy()
    terms = model.terms(inputs())
    balanced_gradients(terms, *parts(model), started("fixed", TASKS), alone, 1)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(terms["semseg"], model.trunk)


def test_a_gradient_that_is_not_finite_comes_through() -> None:
    model = Toy()
    terms = model.terms(inputs())
    terms["depth"] = terms["depth"] * float("nan")
    balanced_gradients(terms, *parts(model), started("upgrad", TASKS), alone, 1)
    assert model.trunk.grad is not None
    assert not model.trunk.grad.isfinite().any()
    assert model.heads["semseg"].grad is not None
    assert model.heads["semseg"].grad.isfinite().all()


def rank(number: int, folder: str) -> None:
    """One of two processes, each with half of the pictures: the losses are means over all."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=2)

    def reduce(tensor: Tensor) -> Tensor:
        torch.distributed.all_reduce(tensor)
        return tensor

    x = inputs().chunk(2)[number]
    found = {name: balanced(name, x, reduce, share=0.5) for name in BALANCED}
    torch.save(found, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_have_the_gradients_of_one(tmp_path: Path) -> None:
    pytest.importorskip("torchjd")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank, args=(number, str(tmp_path))) for number in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    for name in BALANCED:
        assert_same(first[name], balanced(name, inputs()), rtol=1e-6, atol=1e-8)
        assert_same(second[name], first[name], rtol=0, atol=0)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"accumulate": 2}, {}, "takes each task's gradient apart for one batch; .* trainer.accumulate=2 batches"),
    ({"tasks_per_pass": 2}, {}, "needs all 3 tasks in one forward pass; trainer.tasks_per_pass=2 splits them"),
    ({"compile": True}, {}, "going through a pass backward several times; .* use trainer.compile=false"),
    ({}, {"stage": 1}, "which ZeRO cannot partition: with engine.stage=1"),
    ({}, {"stage": 3}, "which ZeRO cannot partition: with engine.stage=3"),
    ({}, {"tasks": ["depth"]}, "needs two tasks or more to balance, not depth"),
    ({}, {"shared": 0}, "every trainable parameter is private to one task"),
]


@pytest.mark.parametrize("name", [name for name in BALANCERS if BALANCERS[name].jacobian])  # type: ignore[attr-defined]
@pytest.mark.parametrize(("options", "run", "message"), REFUSED)
def test_what_cannot_be_right_is_refused(name: str, options: dict[str, Any], run: dict[str, Any], message: str) -> None:
    pytest.importorskip("torchjd")
    usual: dict[str, Any] = {"stage": 0, "tasks": TASKS, "shared": 5}
    balancer = BALANCERS[name]()
    refuse(name, balancer, TrainerOptions(), **usual)
    refuse(name, balancer, TrainerOptions(tasks_per_pass=3), **usual)
    with pytest.raises(ConfigError, match=re.compile(f"balancer={name} .*{message}")):
        refuse(name, balancer, TrainerOptions(**options), **{**usual, **run})


@pytest.mark.parametrize("name", ["fixed", "uncertainty", "dwa"])
def test_balancers_of_losses_go_with_everything(name: str) -> None:
    options = TrainerOptions(accumulate=4, tasks_per_pass=1)
    refuse(name, BALANCERS[name](), options, stage=3, tasks=["depth"], shared=0)
