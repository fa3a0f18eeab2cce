"""Aligned-MTL (Senushkin et al., CVPR 2023, https://arxiv.org/abs/2305.19000, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .aggregator import Aggregator


@dataclass
class AlignedMTL(Aggregator):
    """The mean of the gradients after making them orthogonal and equally long, by the smallest principal component.

        G = V diag(lambda) V^T,   a = sqrt(lambda_min) V diag(lambda)^(-1/2) V^T (1/K, ..., 1/K)

    over the eigenvalues above 0. Implemented by TorchJD.
    """

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        from torchjd.aggregation import AlignedMTLWeighting

        return AlignedMTLWeighting()(gramian)
