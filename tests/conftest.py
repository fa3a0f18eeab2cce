"""Fixtures that every package's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of small real samples: MT_DATA, or `shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MT_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real samples are not here: {folder} is no folder (set MT_DATA to point at them)")
    return folder
