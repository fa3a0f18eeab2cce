"""Aggregators of gradients: against their papers' formulas, literally, and against TorchJD called directly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mt_core.errors import ConfigError
from mtrun.balancers import BALANCERS, aggregator
from mtrun.balancers.pcgrad import order_seed

from .methods import AGGREGATORS, jacobian, started

torchjd = pytest.importorskip("torchjd.aggregation")

SEEDS = range(5)


def literal_pcgrad(rows: Tensor, seed: int, step: int) -> Tensor:
    """Algorithm 1 of the paper, on whole gradients."""
    generator = torch.Generator().manual_seed(order_seed(seed, step))
    total = torch.zeros_like(rows[0])
    for i, row in enumerate(rows):
        changed = row.clone()
        for j in torch.randperm(len(rows), generator=generator).tolist():
            if j != i and changed @ rows[j] < 0:
                changed = changed - (changed @ rows[j]) / rows[j].square().sum() * rows[j]
        total = total + changed
    return total


def literal_mgda(rows: Tensor) -> Tensor:
    """The closed form for two tasks (Sener and Koltun, eq. 5)."""
    first, second = rows
    share = ((second - first) @ second / (first - second).square().sum()).clamp(0, 1)
    return share * first + (1 - share) * second


def literal_imtl_g(rows: Tensor) -> Tensor:
    """a_2..K = g_1 U^T (D U^T)^-1 with D = g_1 - g_k, U = u_1 - u_k; a_1 = 1 - their sum (the paper's closed form)."""
    units = rows / rows.norm(dim=1, keepdim=True)
    D, U = rows[0] - rows[1:], units[0] - units[1:]
    others = rows[0] @ U.T @ torch.linalg.inv(D @ U.T)
    return torch.cat([1 - others.sum().view(1), others]) @ rows


def literal_aligned_mtl(rows: Tensor) -> Tensor:
    """The gradients' singular values all set to the smallest, then their mean."""
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    return (values.min() * left @ right).mean(0)


def literal_upgrad(rows: Tensor) -> Tensor:
    """The mean of the projections onto the cone g_i.y >= 0, each by Dykstra's alternating projections."""
    total = torch.zeros_like(rows[0])
    for row in rows:
        y, corrections = row.clone(), torch.zeros_like(rows)
        for _ in range(800):
            for i, normal in enumerate(rows):
                moved = y + corrections[i]
                inside = moved - min(0.0, float(moved @ normal)) / normal.square().sum() * normal
                corrections[i], y = moved - inside, inside
        total += y / len(rows)
    return total


@pytest.mark.parametrize("seed", SEEDS)
def test_pcgrad_is_the_papers_algorithm_with_orders_that_follow_from_seed_and_step(seed: int) -> None:
    rows = jacobian(seed)
    torch.testing.assert_close(started("pcgrad", seed=seed).combine(rows, 7), literal_pcgrad(rows, seed, 7))


def test_pcgrads_orders_change_with_the_step_and_leave_the_global_generator_alone() -> None:
    before, rows = torch.get_rng_state(), jacobian(0)
    found = [started("pcgrad").combine(rows, step) for step in range(1, 9)]
    assert torch.equal(started("pcgrad").combine(rows, 1), found[0])
    assert len({tuple(x.tolist()) for x in found}) > 4
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", SEEDS)
def test_mgda_is_the_closed_form_for_two_tasks(seed: int) -> None:
    for scale in (1.0, 0.1, 30.0):
        rows = jacobian(seed, tasks=2) * torch.tensor([[scale], [1.0]])
        torch.testing.assert_close(started("mgda").combine(rows, 1), literal_mgda(rows))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_imtl_g_is_the_closed_form(seed: int, tasks: int) -> None:
    rows = jacobian(seed, tasks)
    found = started("imtl_g").combine(rows, 1)
    torch.testing.assert_close(found, literal_imtl_g(rows))
    projections = found @ (rows / rows.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(projections, projections[:1].expand(tasks))


@pytest.mark.parametrize("seed", SEEDS)
def test_aligned_mtl_makes_all_singular_values_the_smallest(seed: int) -> None:
    rows = jacobian(seed)
    torch.testing.assert_close(started("aligned_mtl").combine(rows, 1), literal_aligned_mtl(rows))


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_upgrad_is_the_mean_of_the_projections(seed: int) -> None:
    rows = jacobian(seed, tasks=3, parameters=6)
    torch.testing.assert_close(started("upgrad").combine(rows, 1), literal_upgrad(rows), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("c", [0.2, 0.4, 1.5])
def test_no_direction_within_cagrads_ball_serves_the_worst_served_task_better(seed: int, c: float) -> None:
    rows = jacobian(seed)
    found, mean = started("cagrad", c=c).combine(rows, 1), rows.mean(0)
    radius, worst = c * mean.norm(), (rows @ found).min()
    torch.testing.assert_close((found - mean).norm(), radius, rtol=1e-4, atol=0)
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        tried = found - mean + size * radius * torch.randn(300, rows.shape[1], generator=generator, dtype=rows.dtype)
        tried *= radius / tried.norm(dim=1, keepdim=True).clamp(min=radius)
        assert (rows @ (mean + tried).T).min(0).values.max() <= worst + 1e-4 * radius * rows.norm(dim=1).max()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_nash_mtl_solves_the_bargaining_equation(seed: int, tasks: int) -> None:
    rows = jacobian(seed, tasks)
    products = rows @ rows.T
    a = started("nash_mtl").weigh(products, 1)  # type: ignore[attr-defined]
    assert (a > 0).all()
    torch.testing.assert_close(products @ a, 1 / a, rtol=1e-8, atol=0)
    torch.testing.assert_close(started("nash_mtl").combine(rows, 1).norm(), torch.tensor(tasks**0.5).double())


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_nash_mtl_does_not_depend_on_the_scale_of_a_loss(scale: float) -> None:
    rows = jacobian(3)
    scaled = rows * torch.tensor([[1.0], [scale], [1.0], [1.0]])
    torch.testing.assert_close(started("nash_mtl").combine(scaled, 1), started("nash_mtl").combine(rows, 1))


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5])
def test_nash_mtl_of_two_nearly_opposite_tasks_is_their_bisector(angle: float) -> None:
    rows = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.cos(angle), math.sin(angle)]]).double()
    expected = torch.tensor([0.0, 2**0.5]).double()
    torch.testing.assert_close(started("nash_mtl", ("a", "b")).combine(rows, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["nash_mtl", "mgda", "upgrad"])
def test_what_harms_no_task_stands_still_where_every_direction_harms_one(name: str) -> None:
    opposite = torch.tensor([[1.0, 2.0, 3.0], [-2.0, -4.0, -6.0]])
    torch.testing.assert_close(started(name, ("a", "b")).combine(opposite, 1), torch.zeros(3), rtol=0, atol=1e-6)


DIRECT: dict[str, Callable[[], torch.nn.Module]] = {
    "cagrad": lambda: torchjd.CAGrad(c=0.4),
    "mgda": lambda: torchjd.MGDA(),
    "imtl_g": lambda: torchjd.IMTLG(),
    "aligned_mtl": lambda: torchjd.AlignedMTL(),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DIRECT)
def test_an_aggregator_is_torchjds(name: str, seed: int) -> None:
    rows = jacobian(seed)
    torch.testing.assert_close(started(name).combine(rows, 1), DIRECT[name]()(rows), rtol=1e-5, atol=1e-7)


def test_pcgrad_is_torchjds_from_the_same_generator() -> None:
    rows = jacobian(0)
    torch.manual_seed(order_seed(5, 9))
    torch.testing.assert_close(started("pcgrad", seed=5).combine(rows, 9), torchjd.PCGrad()(rows))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["upgrad", "mgda", "nash_mtl"]))
def test_what_harms_no_task_harms_no_task(seed: int, parameters: int, name: str) -> None:
    rows = jacobian(seed, 4, parameters)
    options = {"epsilon": 1e-9, "max_iters": 20000} if name == "mgda" else {}
    gains = rows @ started(name, **options).combine(rows, 1)
    assert gains.min() >= -1e-3 * rows.square().sum(), gains


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_task_without_a_gradient_takes_no_part(name: str) -> None:
    rows = jacobian(1)
    some, without = rows[[0, 1, 3]], rows.clone()
    without[2] = 0
    torch.testing.assert_close(started(name).combine(without, 4), started(name).combine(some, 4))
    assert some.norm() > 0 < started(name).combine(without, 4).norm()


@pytest.mark.parametrize("name", AGGREGATORS)
def test_no_gradient_at_all_gives_none(name: str) -> None:
    assert not started(name).combine(torch.zeros(4, 5), 1).any()


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stays_so_and_stops_no_solver(name: str, value: float) -> None:
    rows = jacobian(0).float()
    rows[1, 3] = value
    assert not started(name).combine(rows, 1).isfinite().all()


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_small_and_large_gradients_are_combined_alike(name: str, scale: float) -> None:
    rows = jacobian(2).float()
    found, expected = started(name).combine(rows * scale, 1), started(name).combine(rows, 1)
    assert found.dtype == torch.float32
    factor = 1 if name == "nash_mtl" else scale
    torch.testing.assert_close(found, expected * factor, rtol=1e-4, atol=1e-5 * factor)


@pytest.mark.parametrize(
    ("name", "options", "factor"), [("pcgrad", {}, 4.0), ("upgrad", {}, 1.0), ("cagrad", {"c": 0.0}, 1.0)]
)
def test_gradients_that_agree_are_summed_or_averaged(name: str, options: dict[str, float], factor: float) -> None:
    rows = jacobian(0).abs()
    torch.testing.assert_close(started(name, **options).combine(rows, 1), factor * rows.mean(0))


def test_inner_products_are_summed_in_double_precision_over_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = jacobian(0, parameters=1000).float()
    monkeypatch.setattr(aggregator, "COLUMNS", 300)
    torch.testing.assert_close(aggregator.gramian(rows), rows.double() @ rows.double().T, rtol=1e-12, atol=1e-9)


def test_without_torchjd_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregator, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"this balancer needs torchjd: pip install 'mtrun\[balancers\]'"):
        BALANCERS["pcgrad"]()
    with pytest.raises(ConfigError, match="needs torchjd, cvxpy, clarabel"):
        BALANCERS["cagrad"]()
    for name in ("fixed", "uncertainty", "dwa", "gradnorm", "nash_mtl"):
        BALANCERS[name]()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cagrad", {"c": -0.1}, "expected a radius from 0 on"),
        ("mgda", {"epsilon": 0.0}, "expected a step above 0"),
        ("mgda", {"max_iters": 0}, "max_iters=0: expected at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BALANCERS[name](**options)
