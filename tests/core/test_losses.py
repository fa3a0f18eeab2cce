"""The losses of dense prediction, against literal loops and at their edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mt_core import losses
from mt_core.labels import BinaryMap, ClassMap, DepthMap, Label, NormalMap

Loss = Callable[[Tensor, Tensor], Tensor]
Pixels = list[tuple[list[float], list[float]]]  # logits and target of each annotated pixel

CASES: dict[str, tuple[Loss, type[Label], int]] = {
    "cross_entropy": (losses.cross_entropy, ClassMap, 5),
    "balanced_bce": (losses.balanced_bce, BinaryMap, 1),
    "edge_bce": (losses.edge_bce, BinaryMap, 1),
    "depth_l1": (losses.depth_l1, DepthMap, 1),
    "normals_l1": (losses.normals_l1, NormalMap, 3),
    "normals_cosine": (losses.normals_cosine, NormalMap, 3),
}
every_loss = pytest.mark.parametrize("name", CASES)


def make(name: str, seed: int = 0, void: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, N, 6, 7), a target of random values with a share of void pixels, and which are valid (2, 6, 7)."""
    _, label, channels = CASES[name]
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, 6, 7, generator=g) >= void
    values = {
        ClassMap: torch.randint(0, channels, (2, 6, 7), generator=g),
        BinaryMap: (torch.rand(2, 1, 6, 7, generator=g) < 0.3).float(),
        DepthMap: 0.5 + 5 * torch.rand(2, 1, 6, 7, generator=g),
        NormalMap: torch.nn.functional.normalize(torch.randn(2, 3, 6, 7, generator=g), dim=1),
    }[label]
    mask = valid if label is ClassMap else valid.unsqueeze(1)
    target = torch.where(mask, values, torch.tensor(label.void, dtype=values.dtype))
    return 3 * torch.randn(2, channels, 6, 7, generator=g), target, valid


def pixels(logits: Tensor, target: Tensor, valid: Tensor) -> Pixels:
    """Logits and target of every annotated pixel, as lists."""
    targets = target if target.ndim == 4 else target.unsqueeze(1)
    return [(logits[b, :, y, x].tolist(), targets[b, :, y, x].tolist()) for b, y, x in valid.nonzero().tolist()]


def literal_cross_entropy(seen: Pixels) -> float:
    return sum(math.log(sum(math.exp(v) for v in x)) - x[int(t[0])] for x, t in seen) / len(seen)


def literal_bce(seen: Pixels, positive: float, negative: float) -> float:
    total = 0.0
    for (x,), (t,) in seen:
        p = 1 / (1 + math.exp(-x))
        total += -positive * math.log(p) if t == 1 else -negative * math.log(1 - p)
    return total / len(seen)


def literal_balanced_bce(seen: Pixels) -> float:
    share = sum(t == [0.0] for _, t in seen) / len(seen)
    return literal_bce(seen, share, 1 - share)


def unit(v: list[float]) -> list[float]:
    length = math.sqrt(sum(c * c for c in v))
    return [c / length for c in v]


LITERAL: dict[str, Callable[[Pixels], float]] = {
    "cross_entropy": literal_cross_entropy,
    "balanced_bce": literal_balanced_bce,
    "edge_bce": lambda seen: literal_bce(seen, 0.95, 0.05),
    "depth_l1": lambda seen: sum(abs(x[0] - t[0]) for x, t in seen) / len(seen),
    "normals_l1": lambda seen: (
        sum(abs(a - b) for x, t in seen for a, b in zip(unit(x), t, strict=True)) / (3 * len(seen))
    ),
    "normals_cosine": lambda seen: (
        sum(1 - sum(a * b for a, b in zip(unit(x), t, strict=True)) for x, t in seen) / len(seen)
    ),
}


@every_loss
def test_a_loss_equals_a_loop_over_annotated_pixels(name: str) -> None:
    logits, target, valid = make(name)
    found = CASES[name][0](logits.double(), target)
    torch.testing.assert_close(found.item(), LITERAL[name](pixels(logits, target, valid)), rtol=1e-6, atol=1e-9)


@every_loss
def test_a_loss_is_zero_with_a_zero_gradient_where_nothing_is_annotated(name: str) -> None:
    logits, target, _ = make(name, void=1.1)
    logits.requires_grad_()
    loss = CASES[name][0](logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@every_loss
@pytest.mark.parametrize("value", [1e4, -1e4])
def test_logits_of_void_pixels_change_neither_the_loss_nor_its_gradient(name: str, value: float) -> None:
    logits, target, valid = make(name)
    wild = torch.where(valid.unsqueeze(1), logits, value).requires_grad_()
    tame = logits.clone().requires_grad_()
    function = CASES[name][0]
    losses_ = function(wild, target), function(tame, target)
    gradients = [torch.autograd.grad(loss, x)[0] for loss, x in zip(losses_, (wild, tame), strict=True)]
    torch.testing.assert_close(*losses_, rtol=0, atol=0)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert (gradients[0].masked_select(~valid.unsqueeze(1)) == 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), void=st.floats(0, 1), name=st.sampled_from(sorted(CASES)))
def test_losses_are_finite_never_negative_and_blind_to_void_pixels(seed: int, void: float, name: str) -> None:
    logits, target, valid = make(name, seed, void)
    function = CASES[name][0]
    loss = function(logits, target)
    other = torch.where(valid.unsqueeze(1), logits, torch.randn_like(logits))
    assert loss.isfinite()
    assert loss >= -1e-6
    torch.testing.assert_close(function(other, target), loss, rtol=0, atol=0)


@every_loss
def test_a_loss_survives_extreme_logits(name: str) -> None:
    logits, target, _ = make(name)
    logits = (logits.sign() * 1e4).requires_grad_()
    loss = CASES[name][0](logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@every_loss
def test_a_loss_of_bf16_logits_under_autocast_is_computed_in_single_precision(name: str) -> None:
    logits, target, _ = make(name)
    rounded = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = CASES[name][0](rounded, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, CASES[name][0](rounded.float(), target), rtol=1e-6, atol=1e-7)


@every_loss
def test_a_compiler_traces_a_loss_whole_and_gets_the_same(name: str) -> None:
    logits, target, _ = make(name)
    function = CASES[name][0]
    torch.testing.assert_close(
        torch.compile(function, fullgraph=True, backend="aot_eager")(logits, target), function(logits, target)
    )


@every_loss
def test_gradients_of_a_loss_equal_finite_differences(name: str) -> None:
    logits, target, _ = make(name)
    logits = logits.double().requires_grad_()
    exact = target if target.dtype == torch.int64 else target.double()
    assert torch.autograd.gradcheck(lambda x: CASES[name][0](x, exact), logits)


def test_class_balance_is_taken_over_the_batch_and_not_over_pictures() -> None:
    logits = torch.zeros(2, 1, 1, 4)
    target = torch.tensor([[[[1.0, 1, 1, 0]]], [[[0, 0, 255, 255]]]])
    # 3 positives and 3 negatives of 6 annotated pixels: both weigh 1/2, each pixel costs ln 2
    torch.testing.assert_close(losses.balanced_bce(logits, target).item(), math.log(2) / 2)


def test_positives_are_weighted_by_the_share_of_negatives() -> None:
    logits = torch.tensor([2.0, -1, -1, -1]).view(1, 1, 1, 4)
    target = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4)
    expected = (0.75 * math.log1p(math.exp(-2)) + 3 * 0.25 * math.log1p(math.exp(-1))) / 4
    torch.testing.assert_close(losses.balanced_bce(logits, target).item(), expected)


def test_normals_are_compared_by_direction_not_length() -> None:
    logits, target, _ = make("normals_l1")
    for function in (losses.normals_l1, losses.normals_cosine):
        torch.testing.assert_close(function(7 * logits, target), function(logits, target))
        assert function(5 * target, target).item() == pytest.approx(0, abs=1e-6)


def test_logits_without_a_direction_have_a_bounded_gradient() -> None:
    _, target, _ = make("normals_l1", void=0)
    logits = torch.zeros_like(target).requires_grad_()
    for function in (losses.normals_l1, losses.normals_cosine):
        (gradient,) = torch.autograd.grad(function(logits, target), logits)
        assert gradient.norm() < 1 / losses.SHORTEST


def test_depth_below_zero_is_pulled_up() -> None:
    logits = torch.full((1, 1, 1, 1), -1.0, requires_grad=True)
    losses.depth_l1(logits, torch.full((1, 1, 1, 1), 2.0)).backward()
    assert logits.grad is not None
    assert logits.grad.item() == -1
