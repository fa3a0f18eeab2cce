"""VMT-Adapter and VMT-Adapter-Lite (Xin et al., AAAI 2024) as adapters."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {"vmt": "mt_adapters_vmt.vmt:VMTAdapter", "vmt_lite": "mt_adapters_vmt.vmt:VMTAdapterLite"}
