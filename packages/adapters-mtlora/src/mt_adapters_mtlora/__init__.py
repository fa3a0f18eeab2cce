"""MTLoRA and MTLoRA+ (Agiza, Neseem, Reda: MTLoRA, CVPR 2024) as adapters."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {"mtlora": "mt_adapters_mtlora.mtlora:MTLoRA", "mtlora_plus": "mt_adapters_mtlora.mtlora:MTLoRAPlus"}
