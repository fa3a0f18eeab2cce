"""MTLoRA and MTLoRA+: where the modules of `lora.py` go (Agiza et al., CVPR 2024, figure 3 and section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from mt_core.adapter import Adapter
from mt_core.errors import ConfigError
from mt_core.low_rank import SharedLoRA
from mt_core.options import refuse_unknown
from mt_core.site import LINEAR, Role, Site
from mt_core.streams import Streams

from .lora import TaskLoRA

SPECIAL = (Role.proj, Role.fc1, Role.fc2)  # what has task-specific pairs in the last block of a stage
MODULES = (Role.patch_embed, Role.norm, Role.merge, Role.pos_bias)  # what may be unfrozen


@dataclass
class MTLoRA(Adapter):
    """Low-rank updates in every block, shared by all tasks; in the last block of each stage also one per task.

    Defaults are the paper's; `rank` is 16, 32 or 64 there.

    Attributes:
        rank: of the shared pairs, r.
        task_rank: of the pairs per task, r_t; 0 leaves the tasks without any (one shared stream throughout).
        scale: the factor s of every low-rank term (a plain factor, not divided by the rank).
        dropout: on the input of every low-rank term.
        sites: which linear layers get low-rank pairs (section 4.4 removes one at a time): qkv (q and kv where a
            backbone has them apart), proj, fc1, fc2, merge.
        train: which modules are unfrozen and trained as they are: patch_embed, norm, merge, pos_bias.
    """

    usual_decoder = "hrnet"

    rank: int = 64
    task_rank: int = 4
    scale: float = 4.0
    dropout: float = 0.05
    sites: list[str] = field(default_factory=lambda: ["qkv", "proj", "fc1", "fc2"])
    train: list[str] = field(default_factory=lambda: ["patch_embed", "norm", "merge", "pos_bias"])

    def __post_init__(self) -> None:
        if self.rank < 1 or self.task_rank < 0:
            raise ConfigError(f"rank={self.rank} task_rank={self.task_rank}: expected rank >= 1 and task_rank >= 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: expected a probability below 1")
        refuse_unknown("sites", self.sites, LINEAR)
        refuse_unknown("train", self.train, MODULES)
        if both := set(self.sites) & set(self.train):
            raise ConfigError(
                f"{sorted(both)} is in both sites and train: a layer is trained whole or gets a low-rank pair"
            )

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role in self.train:
            return module
        if not site.among(self.sites) or not isinstance(module, nn.Linear):
            return None
        if self.task_rank and site.last and site.role in SPECIAL:
            return TaskLoRA(module, streams, self.rank, self.task_rank, self.scale, self.dropout)
        return SharedLoRA(module, self.rank, self.scale, self.dropout)


@dataclass
class MTLoRAPlus(MTLoRA):
    """MTLoRA+: the patch merging's reduction stays frozen and gets a shared low-rank pair instead (section 3.4).

    Attributes:
        task_rank: None means equal to `rank`, as in the rows of Table 1.
    """

    rank: int = 16
    task_rank: int | None = None  # type: ignore[assignment]
    sites: list[str] = field(default_factory=lambda: ["qkv", "proj", "fc1", "fc2", "merge"])
    train: list[str] = field(default_factory=lambda: ["patch_embed", "norm", "pos_bias"])

    def __post_init__(self) -> None:
        self.task_rank = self.rank if self.task_rank is None else self.task_rank
        super().__post_init__()
