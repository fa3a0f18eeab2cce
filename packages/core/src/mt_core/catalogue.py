"""Where the project's own plugins live, so that a message can say what to install. Names only: nothing is imported."""

from __future__ import annotations

HOMES = {
    (kind, name): dist
    for kind, dist, names in (
        (
            "adapters",
            "mt-adapters-baselines",
            (
                *("full", "lora", "lora_per_task", "multilora", "bitfit", "relative_bias", "adapter"),
                *("low_rank_adapter", "vl_adapter", "compacter", "compacter_pp", "hydralora", "hyperformer"),
                *("polyhistor", "polyhistor_lite", "peft", "vpt_shallow", "vpt_deep"),
            ),
        ),
        ("adapters", "mt-adapters-mtlora", ("mtlora", "mtlora_plus")),
        ("adapters", "mt-adapters-tglora", ("tglora",)),
        ("adapters", "mt-adapters-tora", ("tora",)),
        ("adapters", "mt-adapters-vmt", ("vmt", "vmt_lite")),
        ("backbones", "mt-backbones-pvt", ("pvt_nano", "pvt_tiny", "pvt_small", "pvt_medium", "pvt_large")),
        ("backbones", "mt-backbones-pvt", tuple(f"pvt_v2_b{i}" for i in range(6))),
        ("backbones", "mt-backbones-sam", ("sam_vit_nano", "sam_vit_b", "sam_vit_l", "sam_vit_h")),
        ("decoders", "mt-backbones-sam", ("sam_mask",)),
        ("backbones", "mt-backbones-swin", ("swin_nano", "swin_tiny", "swin_small", "swin_base", "swin_large")),
        ("datasets", "mt-datasets", ("rooms", "nyud", "pascal", "nyuv2", "cityscapes", "folder")),
        ("tasks", "mt-datasets", ("inverse_depth",)),
    )
    for name in names
}
