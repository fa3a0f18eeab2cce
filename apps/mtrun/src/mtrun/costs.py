"""What a run costs besides parameters: operations of a prediction, seconds of a step, memory."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import Any

import torch

from mt_core.accounting import Counts, costs
from mt_core.model import MultiTaskModel

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5): makes the highest resident size the present one


class Meter:
    """Measures a training run from when it is made.

    Args:
        model: counted now, on the meta device, before an engine splits it between processes.
        counts: of its parameters.
        image_size: (height, width) of its input.
        device: that it is trained on.
    """

    def __init__(
        self, model: MultiTaskModel, counts: Counts, image_size: tuple[int, int], device: torch.device
    ) -> None:
        found = costs(model, image_size)
        self.operations = {"gmacs": found["model"], "encoder_gmacs": found["encoder"], "mib": round(counts.mib, 2)}
        self.device = device
        self.steps: list[float] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then the process's
            _CLEAR.write_text(_RESET_PEAK)  # a sweep trains several models in one process

    def step(self, seconds: float) -> None:
        """Note how long a step took, with waiting for its data."""
        self.steps.append(seconds)

    def result(self) -> dict[str, Any]:
        """For `result.json`; null for what cannot be measured here.

        gmacs, encoder_gmacs: {convention: 10^9 multiply-accumulates for one picture}, see `mt_core.accounting`.
        mib: of the trainable parameters in float32.
        step_seconds: the median over the steps that this process took; evaluations are left out.
        peak_memory_mib: `host`, resident memory of this process (its workers not included), evaluations too; `device`,
            what torch had allocated there.
        """
        cuda = self.device.type == "cuda"
        return {
            **self.operations,
            "step_seconds": statistics.median(self.steps) if self.steps else None,
            "peak_memory_mib": {
                "host": _peak_host(),
                "device": round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1) if cuda else None,
            },
        }


def _peak_host() -> float | None:
    """MiB"""
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return round(int(lines["VmHWM"].split()[0]) / 1024, 1)
    except (OSError, KeyError, ValueError):
        return _peak_usage()


def _peak_usage() -> float | None:
    """As POSIX says it, where there is no /proc: in bytes on macOS."""
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
