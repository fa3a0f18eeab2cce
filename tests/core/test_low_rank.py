"""Low-rank terms: added factor by factor, for one input or a stack of streams, they are y + s B A x."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mt_core.low_rank import add_low_rank, add_low_rank_per_stream, pair

STREAMS, ROWS, K, D, R = 3, 5, 7, 11, 2


def test_a_pair_starts_as_nothing_in_the_type_of_its_layer() -> None:
    a, b = pair(nn.Linear(K, D, dtype=torch.float64), R)
    assert (a.shape, b.shape) == ((R, K), (D, R))
    assert a.dtype is b.dtype is torch.float64
    assert a.any()
    assert not b.any()


def test_one_input() -> None:
    x, y, a, b = torch.randn(2, 4, K), torch.randn(2, 4, D), torch.randn(R, K), torch.randn(D, R)
    assert_close(add_low_rank(y, x, a, b, 0.7), y + 0.7 * x @ a.T @ b.T)


@pytest.mark.parametrize("inputs", [1, STREAMS])
@pytest.mark.parametrize("outputs", [1, STREAMS])
def test_streams_that_share_their_input_or_not(inputs: int, outputs: int) -> None:
    x, y = torch.randn(inputs, ROWS, K), torch.randn(outputs, ROWS, D)
    a, b = torch.randn(STREAMS, R, K), torch.randn(STREAMS, D, R)
    sum_ = add_low_rank_per_stream(y, x, a, b, 0.7)
    for s in range(STREAMS):
        assert_close(sum_[s], y[s % outputs] + 0.7 * x[s % inputs] @ a[s].T @ b[s].T)
