"""Edges from a map of classes, where a data set has no edges of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mt_core.labels import IGNORE


def edges_from_classes(classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """1 on one-pixel-wide lines along the borders of classes, from (H, W) with 255 where not annotated: (1, H, W).

    A pixel is an edge if its right or its lower neighbour is of another class. Whether a border runs along something
    that is not annotated nobody knows: there, and where nothing is annotated, the edge is void (255).
    """
    edge = np.zeros(classes.shape, bool)
    unknown = classes == IGNORE
    for here, there in (((slice(None), slice(-1)), (slice(None), slice(1, None))), ((slice(-1),), (slice(1, None),))):
        annotated = (classes[here] != IGNORE) & (classes[there] != IGNORE)
        edge[here] |= annotated & (classes[here] != classes[there])
        unknown[here] |= classes[there] == IGNORE
    return np.where(edge, 1, np.where(unknown, IGNORE, 0)).astype(np.float32)[None]
