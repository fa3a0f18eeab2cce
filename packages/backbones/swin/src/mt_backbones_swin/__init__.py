"""Swin Transformer (Liu et al., ICCV 2021) as a streamed backbone."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_backbones() -> Mapping[str, type | str]:
    names = {"swin_nano": "SwinNano", "swin_tiny": "SwinTiny", "swin_small": "SwinSmall"}
    names |= {"swin_base": "SwinBase", "swin_large": "SwinLarge"}
    return {name: f"mt_backbones_swin.swin:{cls}" for name, cls in names.items()}
