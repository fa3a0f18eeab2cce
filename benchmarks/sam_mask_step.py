"""The decoders of mSAM for 13 + 1 + 3 channels at 512 px, forward and backward, beside the encoder of a reduced SAM.

    python benchmarks/sam_mask_step.py

encoder x 3      three frozen forward and backward passes (width 256, depth 4), as many as three adapted tasks cost
all kept         our decoders, activations kept
chunks of 4      as `decoder=sam_mask` does it: four channels at a time, recomputed in the backward pass
chunks of 2      the same, two at a time
literal          SAM's own decoder, all channels of a task in one call
literal, apart   SAM's own decoder, a call for each picture and channel
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from measure import Step, main
from segment_anything import modeling
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from mt_backbones_sam.encoder import SamEncoder
from mt_backbones_sam.sam import SamNano
from mt_backbones_sam.sam_mask import SamMask, SamMaskHead
from mt_core.task import Task
from mt_core.tasks import Depth, Normals, Segmentation

TASKS: tuple[Task, ...] = (Segmentation("semseg", 13), Depth("depth"), Normals("normals"))
SIZE, GRID = 512, 32


def encoder() -> Step:
    vit = VisionTransformerSAM(
        img_size=SIZE, embed_dim=256, depth=4, num_heads=8, use_rel_pos=True, window_size=14,
        global_attn_indexes=(1, 3), norm_layer=partial(nn.LayerNorm, eps=1e-6), num_classes=0,  # type: ignore[arg-type]
    )  # fmt: skip
    plain = SamEncoder(vit, neck=True).train().requires_grad_(False)
    pictures = torch.rand(1, 3, SIZE, SIZE, requires_grad=True)

    def step() -> None:
        for _ in TASKS:
            pictures.grad = None
            plain(pictures)[0].square().mean().backward()

    return step


def built(**options: bool | int) -> tuple[list[SamMaskHead], list[Tensor]]:
    torch.manual_seed(0)
    plain = SamNano().build((SIZE, SIZE))
    heads = [SamMask(**options).build(task, plain) for task in TASKS]  # type: ignore[arg-type]
    found = [head for head in heads if isinstance(head, SamMaskHead)]
    return found, [torch.randn(1, 256, GRID, GRID, requires_grad=True) for _ in TASKS]


def ours(**options: bool | int) -> Step:
    heads, embeddings = built(**options)

    def step() -> None:
        for head, x in zip(heads, embeddings, strict=True):
            head.zero_grad()
            head([x]).square().mean().backward()

    return step


def originals(heads: list[SamMaskHead]) -> list[modeling.MaskDecoder]:
    """SAM's own decoders with the weights of ours."""
    found = []
    for head in heads:
        transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
        found.append(modeling.MaskDecoder(transformer_dim=256, transformer=transformer))
        found[-1].load_state_dict(head.mask_decoder.state_dict())
    return found


def predict(head: SamMaskHead, original: modeling.MaskDecoder, x: Tensor, apart: bool) -> Tensor:
    """(1, N, 4h, 4w)"""
    pe = head.pe_layer(GRID, GRID).T.unflatten(1, (GRID, GRID)).unsqueeze(0)
    dense = head.no_mask_embed.weight[:, :, None, None].expand(-1, -1, GRID, GRID)
    calls = dense.split(1 if apart else len(dense))
    masks = [original.predict_masks(x, pe, x.new_zeros(len(d), 0, 256), d)[0][:, :1] for d in calls]
    return torch.cat(masks).transpose(0, 1)


def literal(apart: bool) -> Step:
    heads, embeddings = built()
    decoders = originals(heads)

    def step() -> None:
        for head, original, x in zip(heads, decoders, embeddings, strict=True):
            head.zero_grad()
            original.zero_grad()
            predict(head, original, x, apart).square().mean().backward()

    return step


VARIANTS: dict[str, Callable[[], Step]] = {
    "encoder x 3": encoder,
    "all kept": partial(ours, chunk=0, checkpointing=False),
    "chunks of 4": ours,
    "chunks of 2": partial(ours, chunk=2),
    "literal": partial(literal, False),
    "literal, apart": partial(literal, True),
}


def check() -> None:
    """SAM's own decoders compute what ours do."""
    heads, embeddings = built()
    with torch.no_grad():
        for head, original, x in zip(heads, originals(heads), embeddings, strict=True):
            torch.testing.assert_close(head([x]), predict(head, original, x, apart=True), atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    main(__file__, __doc__ or "", VARIANTS, "encoder x 3", check)
