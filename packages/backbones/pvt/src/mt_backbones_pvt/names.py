"""What PVT's weights are called: in the authors' files, in timm, and here.

| the authors | timm (v2) | here |
|---|---|---|
| `patch_embed2.proj.weight` | `stages.1.downsample.proj.weight` | `stages.1.patch_embed.proj.weight` |
| `pos_embed2` (v1) | | `stages.1.pos_embed.table` |
| `block2.0.attn.q.weight` | `stages.1.blocks.0.attn.q.weight` | as timm |
| `block2.0.mlp.dwconv.dwconv.weight` (v2) | `stages.1.blocks.0.mlp.dwconv.weight` | as timm |
| `norm2.weight` (v2) | `stages.1.norm.weight` | as timm |
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

AUTHORS = {
    theirs.format(i + 1): ours.format(i)
    for i in range(4)
    for theirs, ours in {
        "patch_embed{}.": "stages.{}.patch_embed.",
        "pos_embed{}": "stages.{}.pos_embed.table",
        "block{}.": "stages.{}.blocks.",
        "norm{}.": "stages.{}.norm.",
    }.items()
}
TIMM = {"patch_embed.": "stages.0.patch_embed."} | {
    f"stages.{i}.downsample.": f"stages.{i}.patch_embed." for i in range(1, 4)
}
_NOT_USED = ("norm.", "head.", "cls_token")  # v1's final norm and the class token serve the classifier alone


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the authors' or timm's layout under our names, without what dense prediction does not use."""
    used = {name: x for name, x in state.items() if not name.startswith(_NOT_USED)}
    return {name.replace(".dwconv.dwconv.", ".dwconv."): x for name, x in _rename(used, AUTHORS | TIMM).items()}


def to_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of v1 under the authors' names."""
    return _rename(state, {ours: theirs for theirs, ours in AUTHORS.items()})


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of v2 under timm's names."""
    return _rename(state, {ours: theirs for theirs, ours in TIMM.items()})


def _rename(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Exchange the one prefix that a name begins with, if any."""

    def renamed(name: str) -> str:
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        return prefixes.get(prefix, "") + name.removeprefix(prefix)

    return {renamed(name): x for name, x in state.items()}
