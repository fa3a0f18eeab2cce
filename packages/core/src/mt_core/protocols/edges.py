"""The odsF of edges: thin the prediction, match it with the annotation up to a distance, take the best threshold.

The measure of Martin, Fowlkes and Malik (TPAMI 2004) as used since: one threshold for the whole data set. Ours differs
from the usual MATLAB code in these points: the matching is a true maximum matching (there, of a sparse sample of the
possible pairs), edges near the border are not weakened, the annotation is thinned as well, void pixels hold neither
prediction nor annotation, and the best of 99 thresholds is taken as it is, not interpolated.
Needs scipy and scikit-image; runs on the CPU.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..labels import BinaryMap
from .binary import named
from .totals import TotalsMetric

Array = np.ndarray[Any, Any]

SMOOTHING = 2.0  # pixels, standard deviation before the direction of an edge is taken; as a triangle of radius 4
PLATEAU = 1.01  # an edge is suppressed only by a neighbour that is this factor stronger


class EdgeMatches(TotalsMetric):
    """Totals of one tolerance: matches, predicted edge pixels, annotated ones at each threshold, annotated pixels.

    Args:
        tolerances: largest distances of a match, as shares of the picture's diagonal.
        thresholds: ascending; a pixel is predicted where its probability is above.
        index: which of the tolerances the result is for.

    Raises:
        ConfigError: if scipy or scikit-image is not installed.
    """

    higher_is_better = True

    thresholds: Tensor

    def __init__(self, tolerances: tuple[float, ...], thresholds: Tensor, index: int) -> None:
        _need_libraries()
        shares = ", ".join(map(str, tolerances))
        super().__init__(named(f"edge_matches within {shares}", thresholds), len(tolerances), 4, len(thresholds))
        self.tolerances, self.index = tolerances, index
        self.register_buffer("thresholds", thresholds, persistent=False)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 1, H, W) -> (tolerances, 4, T)"""
        valid = BinaryMap.valid(target).cpu().numpy()
        truth = (target[:, 0] > 0.5).cpu().numpy() & valid
        thresholds = np.asarray(self.thresholds.tolist())
        counts = [
            _picture(p, t, v, self.tolerances, thresholds)
            for p, t, v in zip(prediction[:, 0].double().cpu().numpy(), truth, valid, strict=True)
        ]
        return torch.from_numpy(np.sum(counts, axis=0)).to(self.totals)

    def compute(self) -> Tensor:
        matches, predicted, truth, annotated = self.totals[self.index]
        best = (2 * matches / (predicted + truth).clamp(min=1)).max()
        return torch.where(annotated.sum() > 0, 100 * best, torch.nan)


class OdsF(EdgeMatches):
    """Harmonic mean of precision and recall of matched edge pixels over all pictures, best threshold, in percent."""


def suppress(probability: Array) -> Array:
    """Keep the crests: 0 where a neighbour across the edge is stronger. (H, W) -> (H, W)

    The direction across is that in which the smoothed map bends most, up or down (the eigenvector of its Hessian whose
    eigenvalue is the larger in size): down on a crest, up at its feet. The neighbours are one pixel away and
    interpolated. Equal neighbours are both kept: thinning decides.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(probability, SMOOTHING)
    down, right = np.gradient(smooth)
    yy, xy = np.gradient(down)
    xx = np.gradient(right, axis=1)
    across = 0.5 * np.arctan2(2 * xy, xx - yy) + np.where(xx + yy < 0, math.pi / 2, 0)
    step = np.stack([np.sin(across), np.cos(across)])
    place = np.indices(probability.shape, dtype=float)
    sides = [ndimage.map_coordinates(probability, place + sign * step, order=1, mode="nearest") for sign in (1, -1)]
    kept: Array = np.where(PLATEAU * probability >= np.maximum(*sides), probability, 0)
    return kept


def thin(mask: Array) -> Array:
    """Lines of one pixel (Zhang and Suen, 1984): (H, W) -> (H, W) boolean."""
    from skimage.morphology import skeletonize

    lines: Array = skeletonize(mask)  # type: ignore[no-untyped-call]
    return lines


def pairs(predicted: Array, truth: Array, radius: float) -> tuple[Array, Array, Array]:
    """All pairs of a predicted and an annotated pixel within `radius` pixels of each other.

    predicted, truth: (H, W) boolean. Gives the numbers of the pixels in the picture, and the squared distances.
    """
    reach = math.floor(radius)
    offsets: Array = np.indices((2 * reach + 1, 2 * reach + 1)).reshape(2, -1) - reach
    squares = (offsets**2).sum(0)
    near = squares <= radius**2
    width = truth.shape[1] + 2 * reach
    padded = np.pad(truth, reach).ravel()
    rows, columns = np.nonzero(predicted)
    shifts = (offsets[0] + reach) * width + offsets[1] + reach
    one, which = np.nonzero(padded[(rows * width + columns)[:, None] + shifts[near]])
    row, column = rows[one] + offsets[0, near][which], columns[one] + offsets[1, near][which]
    stride = truth.shape[1]
    return (rows * stride + columns)[one], row * stride + column, squares[near][which]


def match(one: Array, other: Array, size: int) -> int:
    """How many pairs can be chosen so that nothing stands in two of them: a maximum matching of the pairs.

    one, other: (P,) numbers below `size` of what is matched with what; no pair twice.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    if not len(one):
        return 0
    left, right = _numbered(one, size), _numbered(other, size)
    n, m = int(left.max()) + 1, int(right.max()) + 1
    # a unit of flow from a source over a predicted and an annotated pixel to a sink: scipy's own bipartite matching
    # gives the same, and takes seconds where two maps are about equally dense
    source, sink = n + m, n + m + 1
    start = np.concatenate([left, np.full(n, source), n + np.arange(m)]).astype(np.int32)
    end = np.concatenate([n + right, np.arange(n), np.full(m, sink)]).astype(np.int32)
    graph = csr_array((np.ones(len(start), np.int32), (start, end)), shape=(sink + 1, sink + 1))
    return int(maximum_flow(graph, source, sink).flow_value)


def _numbered(values: Array, size: int) -> Array:
    """The values, which are below `size`, numbered from 0 without gaps."""
    present = np.zeros(size, bool)
    present[values] = True
    numbers: Array = (present.cumsum() - 1)[values]
    return numbers


def _picture(probability: Array, truth: Array, valid: Array, tolerances: tuple[float, ...], thresholds: Array) -> Array:
    """The counts of one picture: (tolerances, 4, T)."""
    counts = np.zeros((len(tolerances), 4, len(thresholds)))
    if not valid.any():
        return counts
    radii = np.array(tolerances) * math.hypot(*truth.shape)
    truth = thin(truth)
    counts[:, 2:] = np.array([truth.sum(), valid.sum()])[:, None]
    crests = np.where(valid, suppress(np.where(valid, probability, 0)), 0)
    one, other, squares = pairs(crests > thresholds[0], truth, float(radii.max()))
    before: Array | None = None
    for i, threshold in enumerate(thresholds):
        above = crests > threshold
        if before is not None and np.array_equal(above, before):
            counts[:, :2, i] = counts[:, :2, i - 1]
            continue
        before, crest = above, thin(above)
        counts[:, 1, i] = crest.sum()
        predicted = crest.ravel()[one]
        for row, radius in zip(counts, radii, strict=True):
            chosen = predicted & (squares <= radius**2)
            row[0, i] = match(one[chosen], other[chosen], truth.size)
    return counts


def _need_libraries() -> None:
    try:
        import scipy  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"odsF of edges needs scipy and scikit-image, and {error.name} is not installed; "
            f"pip install 'mt-core[edges]', or leave it out"
        ) from error
