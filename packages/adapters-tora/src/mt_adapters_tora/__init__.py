"""ToRA, task-aware low-rank adaptation (TA-LoRA; Wang et al., MTSAM), as an adapter."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {"tora": "mt_adapters_tora.tora:ToRA"}
