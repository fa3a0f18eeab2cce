"""The training step of ToRA with three tasks on a reduced SAM (width 256, depth 4, 512 px), and the decoders' share.

    python benchmarks/tora_step.py

ours             three streams, the update in factor form
a task at a time the same, one stream after the other (trainer.tasks_per_pass=1)
frozen x 3       three forward and backward passes of the frozen encoder: what three adapted encoders cost at least
full update      the direct form: the T x d x k update is built, added to the weight, and each task runs apart
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from measure import Step, main
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from torch.func import functional_call

from mt_adapters_tora.tora import ToRA
from mt_adapters_tora.tucker import TuckerLinear
from mt_backbones_sam.encoder import SamEncoder
from mt_core.attachment import Attachment, attach

TASKS = ("semseg", "depth", "normals")
SIZE, BATCH = 512, 1


def encoder() -> SamEncoder:
    torch.manual_seed(0)
    vit = VisionTransformerSAM(
        img_size=SIZE, embed_dim=256, depth=4, num_heads=8, use_rel_pos=True, window_size=14,
        global_attn_indexes=(1, 3), norm_layer=partial(nn.LayerNorm, eps=1e-6), num_classes=0,  # type: ignore[arg-type]
    )  # fmt: skip
    return SamEncoder(vit, neck=True).train().requires_grad_(False)


def images() -> Tensor:
    return torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def loss(levels: list[Tensor]) -> Tensor:
    return torch.stack([level.square().mean() for level in levels]).sum()


def ours(at_once: int = len(TASKS)) -> Step:
    attachment, pictures = attach(ToRA(), encoder(), TASKS), images()
    attachment.encoder.train()
    groups = [TASKS[i : i + at_once] for i in range(0, len(TASKS), at_once)]

    def step() -> None:
        attachment.encoder.zero_grad()
        for group in groups:
            attachment.select(group)
            features = attachment.features(attachment.encoder(pictures))
            torch.stack([loss(levels) for levels in features.values()]).sum().backward()

    return step


def frozen() -> Step:
    plain, pictures = encoder(), images().requires_grad_()

    def step() -> None:
        for _ in TASKS:
            pictures.grad = None
            loss(plain(pictures)).backward()  # to the pictures: the way back goes through every layer

    return step


def full_update() -> Step:
    attachment, plain, pictures = attach(ToRA(dropout=0.0), encoder(), TASKS), encoder(), images()
    layers = {p: m for p, m in attachment.encoder.named_modules() if isinstance(m, TuckerLinear)}
    own = dict(plain.named_parameters())
    norms = {name: p for name, p in attachment.encoder.named_parameters() if p.requires_grad and name in own}

    def step() -> None:
        attachment.encoder.zero_grad()
        update = {path: whole(layer) for path, layer in layers.items()}  # (T, d, k) each
        losses = []
        for t, _ in enumerate(TASKS):
            weights = {f"{path}.weight": layers[path].base.weight + update[path][t] for path in layers}
            losses.append(loss(functional_call(plain, {**norms, **weights}, (pictures,))))
        torch.stack(losses).sum().backward()

    return step


def whole(layer: TuckerLinear) -> Tensor:
    u3 = torch.stack([layer.u3[task] for task in TASKS])
    return layer.scale * torch.einsum("pqv,dp,kq,tv->tdk", layer.core, layer.u1, layer.u2, u3)


VARIANTS: dict[str, Callable[[], Step]] = {
    "ours": ours,
    "a task at a time": partial(ours, 1),
    "frozen x 3": frozen,
    "full update": full_update,
}


def check() -> None:
    """The direct form computes what ours computes."""
    attachment: Attachment = attach(ToRA(init_scale=0.1), encoder(), TASKS)
    attachment.encoder.eval()
    plain, pictures = encoder().eval(), images()
    for layer in attachment.encoder.modules():
        if isinstance(layer, TuckerLinear):
            nn.init.normal_(layer.core, std=0.1)
    with torch.no_grad():
        found = attachment.features(attachment.encoder(pictures))
        for t, task in enumerate(TASKS):
            weights = {
                f"{path}.weight": layer.base.weight + whole(layer)[t]
                for path, layer in attachment.encoder.named_modules()
                if isinstance(layer, TuckerLinear)
            }
            torch.testing.assert_close(found[task], functional_call(plain, weights, (pictures,)), atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    main(__file__, __doc__ or "", VARIANTS, "frozen x 3", check)
