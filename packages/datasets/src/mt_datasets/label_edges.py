"""Edges from a map of classes, where a data set has no edges of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mt_core.labels import IGNORE

REACH = 8 / 480  # of the picture's height: so far a class is taken to go on into what is not annotated


def edges_from_classes(classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """1 on one-pixel-wide lines along the borders of classes, from (H, W) with 255 where not annotated: (1, H, W).

    A pixel is an edge if its right or its lower neighbour is of another class. People who annotate leave a strip
    between objects; each side of it goes on to the middle, where the edge is then. Anywhere else in and beside what is
    not annotated nobody knows: there the edge is void (255), and never 0.
    """
    filled = _grown(classes)
    edge, unknown = np.zeros(classes.shape, bool), classes == IGNORE
    for here, there in (((slice(None), slice(-1)), (slice(None), slice(1, None))), ((slice(-1),), (slice(1, None),))):
        known = (filled[here] != IGNORE) & (filled[there] != IGNORE)
        edge[here] |= known & (filled[here] != filled[there])
        unknown[here] |= classes[there] == IGNORE
    return np.where(edge, 1, np.where(unknown, IGNORE, 0)).astype(np.float32)[None]


def _grown(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The map with the nearest class where something annotated is within reach."""
    void = classes == IGNORE
    if not void.any() or void.all():
        return classes
    from scipy.ndimage import distance_transform_edt  # slow to import, and only derived edges need it

    distance, (row, column) = distance_transform_edt(void, return_indices=True)
    near: NDArray[np.bool_] = distance <= max(1, REACH * len(classes))
    return np.where(near, classes[row, column], IGNORE)
