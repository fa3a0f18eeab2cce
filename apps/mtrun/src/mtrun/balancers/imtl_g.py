"""IMTL-G, impartial multi-task learning (Liu et al., ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .aggregator import Aggregator


@dataclass
class IMTLG(Aggregator):
    """The combination that has the same projection on every task's gradient, whatever their norms.

        d.u_1 = ... = d.u_K,   u_k = g_k / || g_k ||,   sum_k a_k = 1

    Some a_k may be negative. Implemented by TorchJD: a ~ G^+ (||g_1||, ..., ||g_K||).
    """

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        from torchjd.aggregation import IMTLGWeighting

        return IMTLGWeighting()(gramian)
