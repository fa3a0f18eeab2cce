"""TGLoRA (Gangwar et al., Parameter-Efficient Multi-Task Learning via Progressive Task-Specific Adaptation)."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {"tglora": "mt_adapters_tglora.tglora:TGLoRA"}
