"""What multi-task adapters are compared with: full fine-tuning, LoRA, BitFit, bottleneck adapters, VPT, hyper-networks,
and whatever Hugging Face PEFT replaces layers with."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {
        "full": "mt_adapters_baselines.full:Full",
        "lora": "mt_adapters_baselines.lora:LoRA",
        "lora_per_task": "mt_adapters_baselines.lora:LoRAPerTask",
        "multilora": "mt_adapters_baselines.multilora:MultiLoRA",
        "bitfit": "mt_adapters_baselines.bias:BitFit",
        "relative_bias": "mt_adapters_baselines.bias:RelativeBias",
        "adapter": "mt_adapters_baselines.adapters:BottleneckAdapter",
        "low_rank_adapter": "mt_adapters_baselines.adapters:LowRankAdapter",
        "vl_adapter": "mt_adapters_baselines.adapters:VLAdapter",
        "compacter": "mt_adapters_baselines.adapters:Compacter",
        "compacter_pp": "mt_adapters_baselines.adapters:CompacterPP",
        "hydralora": "mt_adapters_baselines.hydralora:HydraLoRA",
        "hyperformer": "mt_adapters_baselines.hypernetworks:HyperFormer",
        "polyhistor": "mt_adapters_baselines.hypernetworks:Polyhistor",
        "polyhistor_lite": "mt_adapters_baselines.hypernetworks:PolyhistorLite",
        "peft": "mt_adapters_baselines.peft:Peft",
        "vpt_shallow": "mt_adapters_baselines.vpt:VPTShallow",
        "vpt_deep": "mt_adapters_baselines.vpt:VPTDeep",
    }
