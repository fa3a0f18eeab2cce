"""The projection that UPGrad needs, as non-negative least squares. TorchJD's own wants quadprog, which is GPL.

Imports TorchJD, so it is imported where it is used only.
"""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor
from torchjd.linalg import DualConeProjector, PSDMatrix


class LeastSquares(DualConeProjector):
    """min_v v^T G v subject to v >= u, exactly: with v = u + x and G = R^T R it is min_x || R x + R u ||, x >= 0."""

    def __call__(self, U: Tensor, G: PSDMatrix) -> Tensor:
        """U (..., K), G (K, K) -> (..., K)"""
        values, vectors = torch.linalg.eigh(G.double().cpu())
        root = values.clamp(min=0).sqrt()[:, None] * vectors.T  # R
        root = root / root.abs().max().clamp(min=torch.finfo(root.dtype).tiny)
        rows = [row + torch.from_numpy(nnls(root.numpy(), -(root @ row).numpy())[0]) for row in U.double().cpu()]
        return torch.stack(rows).to(U)
