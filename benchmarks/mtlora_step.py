"""The training step of MTLoRA r=64 (Swin-T, 4 PASCAL tasks, 224, batch 2) against what it should be measured by.

    python benchmarks/mtlora_step.py

ours            task streams: the trunk once, the tasks' low-rank terms batched
frozen          the frozen backbone with the same decoders: what any adaptation costs at least
pass per task   the equations transcribed plainly, task by task: T passes, as figure 2a of the paper
loop in trunk   the equations transcribed plainly, the trunk once, a Python loop over the tasks in the last blocks
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from measure import Step, main
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn

from mt_adapters_mtlora.lora import TaskLoRA
from mt_adapters_mtlora.mtlora import MTLoRA
from mt_backbones_swin.swin import SwinTiny
from mt_core.adapter import Adapter
from mt_core.dataset import Batch
from mt_core.decoders.hrnet import HRNet
from mt_core.frozen import Frozen
from mt_core.low_rank import SharedLoRA
from mt_core.model import MultiTaskModel
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation

TASKS = (
    Segmentation("semseg", 21),
    HumanParts("human_parts", 7),
    Saliency("saliency", 1),
    Normals("normals", 3),
)
SIZE, BATCH = (224, 224), 2


def data() -> Batch:
    torch.manual_seed(0)
    labels = {
        "semseg": torch.randint(21, (BATCH, *SIZE)),
        "human_parts": torch.randint(7, (BATCH, *SIZE)),
        "saliency": torch.randint(2, (BATCH, 1, *SIZE)).float(),
        "normals": F.normalize(torch.randn(BATCH, 3, *SIZE), dim=1),
    }
    present = {name: torch.ones(BATCH, dtype=torch.bool) for name in labels}
    return Batch(["a", "b"], torch.rand(BATCH, 3, *SIZE), labels, present)


def model(adapter: Adapter) -> MultiTaskModel:
    torch.manual_seed(0)
    return MultiTaskModel(SwinTiny().build(SIZE), adapter, HRNet(), TASKS).train()


def whole_step(adapter: Adapter) -> Step:
    """Our step: one forward and backward of all tasks."""
    trained, batch = model(adapter), data()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        logits = trained(batch.images)
        losses = [task.weight * task.loss(logits[task.name], batch.labels[task.name]) for task in TASKS]
        torch.stack(losses).sum().backward()
        optimizer.step()

    return step


def plain_step(groups: list[tuple[str, ...]]) -> Step:
    """The transcription: for each group of tasks a pass of its own, with a loop over the group's tasks inside."""
    trained, batch = model(MTLoRA(rank=64)), data()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        for group in groups:
            images = (batch.images - trained.mean) / trained.std
            losses = []
            for name, levels in transcription(trained.encoder, images, group).items():
                logits = F.interpolate(trained.decoders[name](levels), size=SIZE, mode="bilinear")
                losses.append(trained.tasks[name].weight * trained.tasks[name].loss(logits, batch.labels[name]))
            torch.stack(losses).sum().backward()
        optimizer.step()

    return step


def transcription(encoder: Any, images: Tensor, tasks: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """MTLoRA on Swin, one equation per line, a loop over the tasks wherever they differ."""
    shared = encoder.patch_embed(images)
    levels: dict[str, list[Tensor]] = {task: [] for task in tasks}
    for i, stage in enumerate(encoder.layers):
        for block in stage.blocks:
            attended = attend(block, block.norm1(shared))
            a = shared + block.drop_path1(windows_to_map(low_rank(block.attn.proj, attended), block, shared))
            n = block.norm2(a)
            h = F.gelu(low_rank(block.mlp.fc1, n))
            if isinstance(block.attn.proj, TaskLoRA):
                own = {t: special(block, shared, attended, n, h, t) for t in tasks}
            shared = a + block.drop_path2(low_rank(block.mlp.fc2, h))
        last = i + 1 == len(encoder.layers)
        merge = nn.Identity() if last else encoder.layers[i + 1].downsample
        shared = merge(shared)
        for task in tasks:
            levels[task].append(merge(own[task]).permute(0, 3, 1, 2))
    return levels


def low_rank(layer: Any, x: Tensor) -> Tensor:
    return cast(Tensor, layer.base(x) + layer.scale * (layer.dropout(x) @ layer.a.T @ layer.b.T))


def special(block: Any, x: Tensor, attended: Tensor, n: Tensor, h: Tensor, task: str) -> Tensor:
    """One task's way through the last block of a stage."""

    def layer(site: TaskLoRA, common: Tensor, mine: Tensor) -> Tensor:
        update = site.dropout(mine) @ site.task_a[task].T @ site.task_b[task].T
        return cast(Tensor, site.base(common) + site.scale * update)

    a = x + block.drop_path1(windows_to_map(layer(block.attn.proj, attended, attended), block, x))
    hidden = F.gelu(layer(block.mlp.fc1, n, block.norm2(a)))
    return cast(Tensor, a + block.drop_path2(layer(block.mlp.fc2, h, hidden)))


def attend(block: Any, x: Tensor) -> Tensor:
    attention, (sh, sw) = block.attn, block.shift
    x = window_partition(torch.roll(x, (-sh, -sw), dims=(1, 2)), block.window).flatten(1, 2)
    qkv = low_rank(attention.qkv, x) if isinstance(attention.qkv, SharedLoRA) else attention.qkv(x)
    q, k, v = qkv.unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT * q.shape[-1] ** -0.5 + attention.bias()
    if block.mask is not None:
        scores = (scores.unflatten(0, (-1, len(block.mask))) + block.mask[:, None]).flatten(0, 1)
    return cast(Tensor, (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def windows_to_map(windows: Tensor, block: Any, like: Tensor) -> Tensor:
    x = window_reverse(windows.unflatten(1, block.window), block.window, *like.shape[1:3])
    return torch.roll(x, list(block.shift), dims=(1, 2))


NAMES = tuple(task.name for task in TASKS)
VARIANTS: dict[str, Callable[[], Step]] = {
    "ours": lambda: whole_step(MTLoRA(rank=64)),
    "frozen": lambda: whole_step(Frozen()),
    "pass per task": lambda: plain_step([(name,) for name in NAMES]),
    "loop in trunk": lambda: plain_step([NAMES]),
}


def check() -> None:
    """The transcription computes what we compute."""
    trained = model(MTLoRA(rank=64, dropout=0.0)).eval()
    for module in trained.encoder.modules():
        if isinstance(module, TaskLoRA):
            for b in (module.b, *module.task_b.values()):
                nn.init.normal_(b, std=0.02)
    images = data().images
    with torch.no_grad():
        ours = trained.attachment.features(trained.encoder(images))
        plain = transcription(trained.encoder, images, NAMES)
    for name in NAMES:
        torch.testing.assert_close(ours[name], plain[name], atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    main(__file__, __doc__ or "", VARIANTS, "ours", check)
