"""The contract of a decoder: a light head that turns one task's features into logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from .backbone import Encoder
from .task import Task


@dataclass(kw_only=True)
class Decoder(ABC):
    """Builds the heads. Subclasses are dataclasses: their fields are their options."""

    @abstractmethod
    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        """The head of one task: [(B, C_l, H_l, W_l), ...] as `encoder.levels` promises -> logits (B, N_t, h, w).

        Raises:
            ConfigError: if it cannot read what the encoder gives.
        """
