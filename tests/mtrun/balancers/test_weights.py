"""Balancers of losses: against the equations of their papers, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from mt_core.errors import CheckpointError, ConfigError
from mtrun.balancers import BALANCERS
from mtrun.balancers.adam import adam, moments

from .methods import TASKS, jacobian, started


def history(steps: int, tasks: int = 4) -> Tensor:
    """Losses that fall at different paces, with noise: (steps, K)"""
    pace = torch.linspace(0.01, 0.2, tasks, dtype=torch.float64)
    noise = torch.rand(steps, tasks, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (torch.logspace(-1, 1, tasks, dtype=torch.float64) * torch.exp(-pace * torch.arange(steps)[:, None])) * (
        1 + 0.1 * noise
    )


def test_fixed_weights_are_ones_and_remember_nothing() -> None:
    fixed = started("fixed")
    fixed.update(torch.rand(4), 1)
    assert torch.equal(fixed.weights(), torch.ones(4))
    assert fixed.state() == {}


def test_uncertainty_is_trained_by_torchs_adam_on_the_sum_of_exp_minus_s_times_loss_plus_s() -> None:
    balancer, scales = started("uncertainty", lr=0.1), nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = torch.optim.Adam([scales], lr=0.1)
    for step, losses in enumerate(history(20), 1):
        torch.testing.assert_close(balancer.weights(), torch.exp(-scales.detach()).float())
        optimizer.zero_grad()
        (torch.exp(-scales) * losses + scales).sum().backward()
        optimizer.step()
        balancer.update(losses, step)
    assert balancer.weights().std() > 0.5


def test_uncertainty_tends_to_the_inverse_of_the_losses() -> None:
    balancer, losses = started("uncertainty"), torch.tensor([0.2, 0.5, 1.0, 4.0])
    for step in range(1, 1500):
        balancer.update(losses, step)
    torch.testing.assert_close(balancer.weights(), 1 / losses, rtol=1e-2, atol=0)


def literal_dwa(means: Sequence[Tensor], temperature: float) -> Tensor:
    """Eq. 7 for the coming epoch, from the mean losses of the epochs so far."""
    ratios = [1.0] * 4 if len(means) < 2 else [float(means[-1][k] / means[-2][k]) for k in range(4)]
    powers = [math.exp(ratio / temperature) for ratio in ratios]
    return torch.tensor([4 * power / sum(powers) for power in powers])


@pytest.mark.parametrize("options", [{}, {"every": 5, "temperature": 0.5}])
def test_dwa_is_the_papers_equation_over_epochs_or_so_many_steps(options: dict[str, float]) -> None:
    balancer, losses = started("dwa", steps_per_epoch=3, **options), history(20)
    length, temperature = int(options.get("every", 3)), options.get("temperature", 2.0)
    for step in range(1, 21):
        done = (step - 1) // length
        means = [losses[i * length : (i + 1) * length].mean(0) for i in range(done)]
        torch.testing.assert_close(balancer.weights(), literal_dwa(means, temperature))
        balancer.update(losses[step - 1], step)
    assert balancer.weights().std() > 0.01


def test_dwa_ends_an_epoch_whose_last_step_was_refused_with_the_next_step() -> None:
    balancer = started("dwa", steps_per_epoch=2)
    for step, value in ((1, 4.0), (3, 2.0), (4, 2.0), (5, 1.0)):  # step 2 was refused
        balancer.update(torch.tensor([value, 4.0, 4.0, 4.0]), step)
    torch.testing.assert_close(balancer.kept["before"], torch.tensor([3.0, 4, 4, 4]).double())
    torch.testing.assert_close(balancer.kept["last"], torch.tensor([2.0, 4, 4, 4]).double())


def test_dwa_averages_over_the_steps_in_which_a_task_has_labels() -> None:
    balancer = started("dwa", steps_per_epoch=2)
    for step, losses in enumerate(([2.0, 0, 1, 0], [2, 6, 1, 0], [1, 3, 1, 0], [1, 0, 1, 2]), 1):
        balancer.update(torch.tensor(losses), step)
    powers = torch.tensor([0.5, 0.5, 1.0, 1.0])
    torch.testing.assert_close(balancer.weights(), 4 * torch.softmax(powers / 2, 0))


class LiteralGradNorm:
    """The paper's algorithm 1, with autograd for eq. 2 and torch's Adam."""

    def __init__(self, alpha: float, lr: float) -> None:
        self.alpha = alpha
        self.w = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.optimizer = torch.optim.Adam([self.w], lr=lr)
        self.start: Tensor | None = None

    def update(self, rows: Tensor, losses: Tensor) -> None:
        self.start = losses if self.start is None else self.start
        norms = torch.stack([(self.w[k] * rows[k]).norm() for k in range(4)])
        ratio = losses / self.start
        pace = ratio / ratio.mean()
        target = (norms.mean() * pace**self.alpha).detach()
        self.optimizer.zero_grad()
        (norms - target).abs().sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            self.w *= 4 / self.w.sum()


@pytest.mark.parametrize(("alpha", "lr"), [(1.5, 0.025), (0.0, 0.01), (0.12, 0.05)])
def test_gradnorm_is_the_papers_algorithm(alpha: float, lr: float) -> None:
    balancer, literal = started("gradnorm", alpha=alpha, lr=lr), LiteralGradNorm(alpha, lr)
    for step, losses in enumerate(history(15), 1):
        rows = jacobian(step)
        weights = balancer.weights()
        torch.testing.assert_close(weights, literal.w.detach().float())
        torch.testing.assert_close(balancer.combine(rows, step), weights.double() @ rows)
        balancer.update(losses, step)
        literal.update(rows, losses)
    assert balancer.weights().std() > 0.1
    torch.testing.assert_close(balancer.weights().sum(), torch.tensor(4.0))


def test_gradnorm_with_alpha_0_makes_the_norms_equal() -> None:
    balancer, rows = started("gradnorm", alpha=0.0), jacobian(0)
    for step in range(1, 800):
        balancer.combine(rows, step)
        balancer.update(torch.ones(4), step)
    norms = balancer.weights() * rows.norm(dim=1)
    torch.testing.assert_close(norms / norms.mean(), torch.ones(4).double(), rtol=0.1, atol=0)


def test_gradnorm_forgets_no_task_wholly() -> None:
    balancer, rows = started("gradnorm", lr=0.9), jacobian(0)
    for step in range(1, 6):
        balancer.combine(rows * torch.tensor([[1.0], [1], [1], [1e4]]), step)
        balancer.update(torch.ones(4), step)
        assert (balancer.weights() > 0).all()


@pytest.mark.parametrize("name", ["uncertainty", "gradnorm"])
def test_a_task_without_a_label_learns_nothing_in_a_step(name: str) -> None:
    whole, rows = history(6), jacobian(0)
    balancer, other = started(name), started(name, TASKS[:3])
    for step, losses in enumerate(whole, 1):
        missing = losses * torch.tensor([1, 1, 1, 0])
        balancer.combine(rows * torch.tensor([[1.0], [1], [1], [0]]), step)
        balancer.update(missing, step)
        other.combine(rows[:3], step)
        other.update(losses[:3], step)
    weights, expected = balancer.weights(), other.weights()
    torch.testing.assert_close(weights[:3] / weights[0], expected / expected[0], rtol=0.2, atol=0)
    assert balancer.kept["steps"].tolist() == [6, 6, 6, 0]
    balancer.combine(torch.zeros(4, 3), 7)
    balancer.update(torch.zeros(4), 7)
    assert torch.equal(balancer.weights(), weights)


def test_gradnorm_starts_a_tasks_pace_at_its_first_labels() -> None:
    balancer = started("gradnorm", ("a", "b"))
    for step, losses in enumerate(([2.0, 0.0], [1.0, 5.0]), 1):
        balancer.combine(torch.eye(2), step)
        balancer.update(torch.tensor(losses), step)
    assert balancer.kept["start"].tolist() == [2.0, 5.0]


@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_that_is_restored_goes_on_exactly(name: str) -> None:
    pytest.importorskip("torchjd")
    losses, one, other = history(9), started(name), started(name)
    for step in range(1, 6):
        one.combine(jacobian(step), step)
        one.update(losses[step - 1], step)
    kept = one.state()
    other.restore(kept)
    for step in range(6, 10):
        rows = jacobian(step)
        for balancer in (one, other):
            balancer.update(losses[step - 1], step) if not balancer.jacobian else balancer.combine(rows, step)
            balancer.update(losses[step - 1], step)
        assert torch.equal(one.weights(), other.weights())
        assert torch.equal(one.combine(rows, step), other.combine(rows, step))
    assert all(torch.equal(x, kept[name]) for name, x in kept.items())


@pytest.mark.parametrize(
    "state", [{}, {"scales": torch.zeros(4)}, {**started("uncertainty").state(), "x": torch.ones(1)}]
)
def test_the_state_of_another_balancer_is_refused_and_changes_nothing(state: dict[str, Tensor]) -> None:
    balancer = started("uncertainty")
    balancer.update(torch.ones(4) * 3, 1)
    before = balancer.state()
    with pytest.raises(
        CheckpointError, match=r"the saved balancer holds .* it is of another balancer or of other tasks"
    ):
        balancer.restore(state)
    assert all(torch.equal(x, before[name]) for name, x in balancer.state().items())


def test_what_state_gave_does_not_change_with_the_balancer() -> None:
    balancer = started("uncertainty")
    kept = balancer.state()
    balancer.update(torch.full((4,), 3.0), 1)
    assert not kept["scales"].any()


def test_adam_is_torchs_for_parameters_some_of_which_have_no_gradient() -> None:
    state, values = moments(3), torch.zeros(3, dtype=torch.float64)
    theirs = [nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(3)]
    optimizer = torch.optim.Adam(theirs, lr=0.1)
    for step in range(8):
        gradient = torch.randn(3, dtype=torch.float64)
        taking = torch.tensor([True, step % 2 == 0, step > 4])
        for p, value, takes in zip(theirs, gradient, taking, strict=True):
            p.grad = value.clone() if takes else None
        optimizer.step()
        values += adam(state, gradient, taking, 0.1)
        torch.testing.assert_close(values, torch.stack(theirs).detach())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("uncertainty", {"lr": 0.0}, "expected a rate of the log-scales above 0"),
        ("dwa", {"temperature": 0.0}, "temperature=0.0: expected a number above 0"),
        ("dwa", {"every": 0}, "expected at least 1 step, or null"),
        ("gradnorm", {"alpha": -1.0}, "expected a strength from 0 on"),
        ("gradnorm", {"lr": math.inf}, "expected a rate of the weights above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BALANCERS[name](**options)
