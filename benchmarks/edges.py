"""What the odsF of edges costs per picture, beside the other metrics of edges: seconds of one core."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchmetrics import MetricCollection

from mt_core.protocols import protocol
from mt_core.tasks import Edges


def scene(side: int, rng: np.random.Generator) -> np.ndarray:
    """The boundaries of 30 discs over each other: (side, side) boolean."""
    regions, (rows, columns) = np.zeros((side, side)), np.ogrid[:side, :side]
    for i in range(30):
        row, column = rng.integers(0, side, 2)
        regions[(rows - row) ** 2 + (columns - column) ** 2 < rng.integers(side // 22, side // 5) ** 2] = i + 1
    return np.asarray((regions != np.roll(regions, 1, 0)) | (regions != np.roll(regions, 1, 1)))


def predictions(truth: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The annotation itself; the same blurred and two pixels aside; the latter with clutter everywhere."""
    soft = ndimage.gaussian_filter(np.roll(truth, 2, 1).astype(float), 2)
    soft /= soft.max()
    clutter = ndimage.gaussian_filter(rng.normal(size=truth.shape), 2)
    noisy = np.clip(soft + 0.15 * clutter / clutter.std(), 0, 1)
    return {"perfect": truth.astype(float), "soft": soft, "noisy": noisy}


def seconds(metrics: MetricCollection, prediction: Tensor, target: Tensor) -> float:
    """Of the processor, for an update after the first, which makes out the families."""
    metrics.update(prediction, target)
    started = time.process_time()
    metrics.update(prediction, target)
    return time.process_time() - started


def main() -> None:
    """Print a row per prediction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=448, help="of the picture, in pixels")
    side: int = parser.parse_args().side
    rng = np.random.default_rng(0)
    truth = scene(side, rng)
    target = torch.from_numpy(truth).float()[None, None]
    print(f"{side} x {side}, {int(truth.sum())} annotated pixels")
    rules = protocol("astmt")
    for name, array in predictions(truth, rng).items():
        prediction = torch.from_numpy(array).float()[None, None]
        fast, slow = (
            seconds(MetricCollection(dict(each.metrics(Edges("edges")))), prediction, target)
            for each in (rules, rules.thorough())
        )
        print(f"{name:8} max_pixel_f {fast:.3f} s, with odsF at both tolerances {slow:.2f} s")


if __name__ == "__main__":
    main()
