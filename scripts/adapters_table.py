"""Every installed adapter in one table: what it trains, what it costs, and whether it merges. Needs no data.

    python scripts/adapters_table.py > docs/adapters.md

Swin-T, the four PASCAL tasks, HRNet-like decoders, 448 x 448, every adapter with its default options.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from mt_core import MultiTaskModel, registry
from mt_core.accounting import count_parameters, gmacs
from mt_core.attachment import attach
from mt_core.backbone import Backbone
from mt_core.decoders.hrnet import HRNet
from mt_core.errors import ConfigError
from mt_core.merging import obstacles
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation

TASKS = (Segmentation("semseg", 21), HumanParts("human_parts", 7), Saliency("saliency", 1), Normals("normals", 3))
SIZE = (448, 448)
HEAD = """# Adapters

Every adapter of the project, with its default options, on Swin-T with HRNet-like decoders for the four PASCAL tasks
(semseg, human_parts, saliency, normals), 448 x 448. Written by

```
python scripts/adapters_table.py > docs/adapters.md
```

*trainable* and *live* parameters ([what they mean](counts.md#parameters)) include 1,946,624 of the decoders. GMACs are
for all four tasks and one picture, by two [conventions](counts.md). *passes* is the arithmetic of the encoder over that
of the frozen encoder, all matrix products counted: 1.00 is one pass for all tasks, 4.00 is a pass for each. *merges*
says whether a task's change folds into a plain encoder, at the frozen backbone's cost.

| adapter | from | trainable | live | published GMACs | full GMACs | passes | merges |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    print(HEAD)
    plain = gmacs(model_of("frozen"), SIZE)["full"]
    heads = plain - encoder_gmacs()
    for name in registry("adapters"):
        print(" | ".join(cells(name, plain, heads)))


def cells(name: str, plain: float, heads: float) -> Iterator[str]:
    """The cells of one row; GMACs of the frozen model, and of its decoders alone, are given."""
    yield f"| `{name}`"
    yield registry("adapters").source(name).split()[0]
    try:
        model = model_of(name)
    except ConfigError as refusal:
        yield f"refused: {refusal} |" + " | " * 5 + "|"
        return
    counts, cost = count_parameters(model, SIZE), gmacs(model, SIZE)
    yield f"{counts.trainable:,}"
    yield f"{counts.live:,}"
    yield f"{cost['published']:.2f}"
    yield f"{cost['full']:.2f}"
    yield f"{(cost['full'] - heads) / (plain - heads):.2f}"
    yield f"{merges(name)} |"


def model_of(name: str) -> MultiTaskModel:
    with torch.device("meta"):
        encoder = registry("backbones")["swin_tiny"]().build(SIZE)
        return MultiTaskModel(encoder, registry("adapters")[name](), HRNet(), TASKS)


def encoder_gmacs() -> float:
    """Of the frozen encoder: the frozen model of one task, less the decoder, which is a quarter of what four add."""
    with torch.device("meta"):
        encoder = registry("backbones")["swin_tiny"]().build(SIZE)
        models = [
            MultiTaskModel(copy.deepcopy(encoder), registry("adapters")["frozen"](), HRNet(), tasks)
            for tasks in ((TASKS[0],), (TASKS[0], Segmentation("again", 21)))
        ]
    one, two = (gmacs(model, SIZE)["full"] for model in models)
    return 2 * one - two


def merges(name: str) -> str:
    """Yes, or the first reason why not; on a miniature, because meta tensors have no values to fold."""
    swin: type[Backbone] = registry("backbones")["swin_tiny"]
    encoder, _ = swin.miniature()
    attachment = attach(registry("adapters")[name](), encoder, [task.name for task in TASKS])
    reasons = list(obstacles(attachment, TASKS[0].name).values())
    return f"no: {reasons[0]}" if reasons else "yes"


if __name__ == "__main__":
    main()
