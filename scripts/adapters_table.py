"""Every installed adapter in one table: what it trains, what it costs, and whether it merges. Needs no data.

    python scripts/adapters_table.py > docs/adapters.md

Swin-T, the four PASCAL tasks, 448 x 448, every adapter with its default options under the decoder of its paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from mt_core import MultiTaskModel, registry
from mt_core.accounting import costs, count_parameters
from mt_core.attachment import attach
from mt_core.backbone import Backbone
from mt_core.build import usual_decoder
from mt_core.merging import obstacles
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation

TASKS = (Segmentation("semseg", 21), HumanParts("human_parts", 7), Saliency("saliency", 1), Normals("normals", 3))
SIZE = (448, 448)
HEAD = """# Adapters

Every adapter of the project, with its default options, on Swin-T for the four PASCAL tasks (semseg, human_parts,
saliency, normals), 448 x 448, under the decoder that `decoder=auto` takes. Written by

```
python scripts/adapters_table.py > docs/adapters.md
```

*trainable* and *live* parameters ([what they mean](counts.md#parameters)) include the decoders: 1,946,624 of `hrnet`,
2,549,024 of `segformer`. GMACs are for all four tasks and one picture, by two [conventions](counts.md). *passes* is the
arithmetic of the encoder over that of the frozen encoder, all matrix products counted: 1.00 is one pass for all tasks,
4.00 is a pass for each. *merges* says whether a task's change folds into a plain encoder, which costs what the frozen
one costs.

| adapter | from | decoder | trainable | live | published GMACs | full GMACs | passes | merges |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    print(HEAD)
    plain = {decoder: costs(model_of("frozen", decoder), SIZE)["encoder"]["full"] for decoder in ("hrnet", "segformer")}
    for name in registry("adapters"):
        print(" | ".join(cells(name, plain)))


def cells(name: str, plain: Mapping[str, float]) -> Iterator[str]:
    """The cells of one row, given the frozen encoder's full GMACs as each decoder reads it."""
    decoder = usual_decoder(registry("backbones")["swin_tiny"](), registry("adapters")[name]())
    yield f"| `{name}`"
    yield registry("adapters").source(name).split()[0]
    yield f"`{decoder}`"
    model = model_of(name, decoder)
    counts, found = count_parameters(model, SIZE), costs(model, SIZE)
    yield f"{counts.trainable:,}"
    yield f"{counts.live:,}"
    yield f"{found['model']['published']:.2f}"
    yield f"{found['model']['full']:.2f}"
    yield f"{found['encoder']['full'] / plain[decoder]:.2f}"
    yield f"{merges(name)} |"


def model_of(name: str, decoder: str) -> MultiTaskModel:
    backbone: Backbone = registry("backbones")["swin_tiny"]()
    with torch.device("meta"):
        encoder = backbone.settled(decoder).build(SIZE)
        return MultiTaskModel(encoder, registry("adapters")[name](), registry("decoders")[decoder](), TASKS)


def merges(name: str) -> str:
    """Yes, or the first reason why not; on a miniature, because meta tensors have no values to fold."""
    swin: type[Backbone] = registry("backbones")["swin_tiny"]
    encoder, _ = swin.miniature()
    attachment = attach(registry("adapters")[name](), encoder, [task.name for task in TASKS])
    reasons = list(obstacles(attachment, TASKS[0].name).values())
    return f"no: {reasons[0]}" if reasons else "yes"


if __name__ == "__main__":
    main()
