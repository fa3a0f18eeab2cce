"""Step time and memory of every method as the number of tasks grows: 1, 2, 4, 8 on one backbone.

    python benchmarks/scaling.py --plot docs/scaling.svg

The papers claim: VMT-Adapter flat, MTLoRA nearly flat, TGLoRA between, ToRA linear. What grows in any method is its
decoders, one per task; the column *encoder* leaves them out. The backbone is Swin-T at 128 x 128, batch 2, its features
taken before patch merging, as VMT-Adapter's paper has them: after it, every task's stream passes the merging.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import Step, interleaved, kernel_says

from mt_backbones_swin.swin import FeaturePoint, SwinTiny
from mt_core import MultiTaskModel, registry
from mt_core.decoders.hrnet import HRNet
from mt_core.tasks import Segmentation

METHODS = ("frozen", "vmt", "vmt_lite", "mtlora", "mtlora_plus", "tglora", "tora")
COUNTS = (1, 2, 4, 8)
SIZE, BATCH = (128, 128), 2


@dataclass(frozen=True)
class Row:
    """One method with one number of tasks.

    Attributes:
        whole: seconds of a training step.
        encoder: seconds of the encoder's forward and backward alone.
        mib: peak memory that two steps add to the built model.
    """

    method: str
    tasks: int
    whole: float
    encoder: float
    mib: float


def model_of(method: str, count: int) -> MultiTaskModel:
    torch.manual_seed(0)
    tasks = [Segmentation(f"task{i}", 8) for i in range(count)]
    backbone = SwinTiny(features=FeaturePoint.before_merging, drop_path=0.0)
    return MultiTaskModel(backbone.build(SIZE), registry("adapters")[method](), HRNet(), tasks).train()


def whole_step(method: str, count: int) -> Step:
    """Forward, losses, backward and optimiser of the whole model."""
    model = model_of(method, count)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    images, label = torch.rand(BATCH, 3, *SIZE), torch.randint(8, (BATCH, *SIZE))

    def step() -> None:
        optimizer.zero_grad()
        logits = model(images)
        torch.stack([model.tasks[name].loss(x, label) for name, x in logits.items()]).sum().backward()
        optimizer.step()

    return step


def encoder_step(method: str, count: int) -> Step:
    """Forward and backward of the encoder: every feature that a decoder would read gets a gradient."""
    model = model_of(method, count)
    images = torch.rand(BATCH, 3, *SIZE)

    def step() -> None:
        features = model.attachment.features(model.encoder(images))
        total = torch.stack([level.mean() for levels in features.values() for level in levels]).sum()
        if total.requires_grad:
            total.backward()

    return step


def memory_of(method: str, count: int) -> float:
    """Measured in a process of its own, MiB."""
    command = [sys.executable, __file__, "--memory", method, str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure(rounds: int) -> list[Row]:
    """Every method with every number of tasks; times of one number of tasks are taken in turn."""
    rows = []
    for count in COUNTS:
        whole = interleaved({m: whole_step(m, count) for m in METHODS}, rounds)
        encoder = interleaved({m: encoder_step(m, count) for m in METHODS}, rounds)
        rows += [Row(m, count, whole[m], encoder[m], memory_of(m, count)) for m in METHODS]
    return rows


def table(rows: list[Row]) -> str:
    """Markdown: each figure over the same method's with one task."""
    single = {row.method: row for row in rows if row.tasks == 1}
    lines = [
        "| method | tasks | s / step | over 1 task | encoder s | over 1 task | MiB | over 1 task |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: METHODS.index(row.method)):
        one = single[row.method]
        lines.append(
            f"| {row.method} | {row.tasks} | {row.whole:.3f} | {row.whole / one.whole:.2f} | {row.encoder:.3f} | "
            f"{row.encoder / one.encoder:.2f} | {row.mib:.0f} | {row.mib / one.mib:.2f} |"
        )
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Encoder time and memory over those of one task, a line per method."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "mt-adapters"  # the same picture from the same numbers
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    single = {row.method: row for row in rows if row.tasks == 1}
    for axis, title, value in (
        (axes[0], "encoder time", [row.encoder / single[row.method].encoder for row in rows]),
        (axes[1], "memory of a step", [row.mib / single[row.method].mib for row in rows]),
    ):
        for method in METHODS:
            mine = [(row.tasks, y) for row, y in zip(rows, value, strict=True) if row.method == method]
            axis.plot(*zip(*mine, strict=True), marker="o", label=method)
        axis.set(xlabel="tasks", title=f"{title}, over that of one task", xticks=COUNTS)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="an SVG file to draw")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        step = whole_step(arguments.memory[0], int(arguments.memory[1]))
        before = kernel_says("VmRSS")
        step()
        step()
        print(kernel_says("VmHWM") - before)
        return
    rows = measure(arguments.rounds)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=1))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
