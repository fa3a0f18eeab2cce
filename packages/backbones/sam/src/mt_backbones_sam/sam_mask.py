"""mSAM's decoder: SAM's mask decoder, once per task and for any number of channels (TA-LoRA paper, section 3.3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from segment_anything import modeling
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt_core.backbone import Encoder, describe
from mt_core.decoder import Decoder
from mt_core.errors import CheckpointError, ConfigError
from mt_core.task import Task
from mt_core.weights import load_into

from .mask_decoder import MaskDecoder, rows

WIDTH = 256  # of SAM's mask decoder, whatever the encoder's size


class PositionEncoding(nn.Module):
    """SAM's random Fourier features of the places in a grid, from its prompt encoder. -> (H * W, C)"""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # saved with the task's weights: a decoder trained with other frequencies is another decoder
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, width // 2))

    def forward(self, height: int, width: int) -> Tensor:
        matrix = self.positional_encoding_gaussian_matrix
        across, down = matrix.to(torch.promote_types(matrix.dtype, torch.float32))  # (C / 2), (C / 2)
        y, x = _centres(height, down), _centres(width, across)  # in [-1, 1]
        # a sum of products rather than a matrix product, which autocast would round to bf16
        phase = 2 * math.pi * ((y * down).unsqueeze(1) + x * across)  # (H, W, C / 2)
        return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(0, 1)  # (N, C)


class SamMaskHead(nn.Module):
    """One task's head. [..., (B, C, h, w)] -> (B, N, 4h, 4w)

    Each of the N channels adds an embedding of its own to the image, in the place of SAM's embedding for "no mask
    given"; mask 0 of the mask decoder is the channel's map.

    Args:
        sam: SAM's mask decoder, whose parts are taken over.
        channels: N.
        prompts: give each channel a prompt token of its own as well.
        chunk: channels to compute at a time; 0 for all.
        checkpointing: recompute each chunk in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        sam: modeling.MaskDecoder,
        channels: int,
        prompts: bool = False,
        chunk: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.mask_decoder, self.pe_layer = MaskDecoder(sam), PositionEncoding(sam.transformer_dim)
        self.no_mask_embed = nn.Embedding(channels, sam.transformer_dim)
        self.prompts = nn.Embedding(channels, sam.transformer_dim) if prompts else None
        self.chunk, self.checkpointing = chunk or channels, checkpointing

    def forward(self, features: list[Tensor]) -> Tensor:
        image = features[-1]
        pe = self.pe_layer(*image.shape[-2:]).to(image.dtype)  # (h * w, C)
        tokens, dense = self.mask_decoder.tokens(), rows(self.no_mask_embed)  # (1, T, C), (N, C)
        if self.prompts is not None:
            tokens = torch.cat([tokens.expand(len(dense), -1, -1), rows(self.prompts).unsqueeze(1)], dim=1)
        queries, means = self.mask_decoder.transformer.begin(tokens, image.flatten(2).mT, pe)
        chunks = [slice(i, i + self.chunk) for i in range(0, len(dense), self.chunk)]
        return torch.cat([self._maps(queries, tokens, means, image, pe, dense, at) for at in chunks], dim=1)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Take over what SAM has learned; every channel starts with the embedding for "no mask given".

        Raises:
            CheckpointError: if `state`, under SAM's names, is not that of such a mask decoder, or is not finite.
        """
        names = {f"prompt_encoder.pe_layer.{key}": f"pe_layer.{key}" for key in self.pe_layer.state_dict()}
        names |= {"prompt_encoder.no_mask_embed.weight": "no_mask_embed.weight"}
        own = {names.get(key, key): x for key, x in state.items() if key in names or key.startswith("mask_decoder.")}
        if (embedding := own.get("no_mask_embed.weight")) is not None:
            own["no_mask_embed.weight"] = embedding.repeat(self.no_mask_embed.num_embeddings, 1)
        if self.prompts is not None:
            own["prompts.weight"] = self.prompts.weight.detach()
        source = "the mask decoder of the backbone's checkpoint"
        load_into(self, own, source)
        if bad := [key for key, x in own.items() if not bool(x.isfinite().all())]:
            raise CheckpointError(f"{source}: {bad[0]} holds NaN or infinity; the file is damaged")

    def _maps(
        self, queries: Tensor, tokens: Tensor, means: Tensor, image: Tensor, pe: Tensor, dense: Tensor, at: slice
    ) -> Tensor:
        """The maps of the channels `at`: (B, n, 4h, 4w)"""
        if len(tokens) > 1:  # each channel has its own
            queries, tokens, means = queries[at], tokens[at], means[:, at]
        inputs = queries, tokens, means, image, pe, dense[at]
        if self.checkpointing and self.training:
            return cast(Tensor, checkpoint(self.mask_decoder, *inputs, use_reentrant=False))
        return cast(Tensor, self.mask_decoder(*inputs))


@dataclass(kw_only=True)
class SamMask(Decoder):
    """A full copy of SAM's mask decoder per task, started from the backbone's checkpoint where that has one.

    Its IoU head and three of its four hypernetworks are trainable, counted and saved, but never run (552,036 of
    4,058,340 parameters).

    Attributes:
        prompt_tokens: give each channel, beside its embedding, a prompt token of its own (F_P in the MTSAM paper). The
            papers' parameter counts are those without: off.
        chunk: channels to compute at a time, for all pictures of the batch; 0 for all. Bounds the memory.
        checkpointing: recompute each chunk in the backward pass; without it a training step keeps every chunk's
            activations, whatever `chunk` says.
    """

    prompt_tokens: bool = False
    chunk: int = 4
    checkpointing: bool = True

    def __post_init__(self) -> None:
        if self.chunk < 0:
            raise ConfigError(f"decoder.chunk={self.chunk}: expected a number of channels, or 0 for all at once")

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        if encoder.levels[-1].channels != WIDTH:
            raise ConfigError(
                f"decoder sam_mask reads {WIDTH} channels in the last level, the backbone gives "
                f"{describe(encoder.levels)}; use a SAM backbone with backbone.features=neck, or another decoder"
            )
        head = SamMaskHead(_sam(), task.channels, self.prompt_tokens, self.chunk, self.checkpointing)
        state: Mapping[str, Tensor] | None = getattr(encoder, "mask_decoder_state", None)
        if state:
            head.start_from(state)
        elif state is not None:
            warnings.warn(
                "the backbone's checkpoint holds no mask decoder (only SAM's own layout does): decoder sam_mask "
                "starts at random",
                stacklevel=2,
            )
        return head


def _sam() -> modeling.MaskDecoder:
    """SAM's mask decoder, as `segment_anything.build_sam` configures it."""
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=8, mlp_dim=2048)
    return modeling.MaskDecoder(transformer_dim=WIDTH, transformer=transformer)


def _centres(count: int, like: Tensor) -> Tensor:
    """The middles of `count` cells along an axis from -1 to 1: (count, 1)"""
    return ((torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count * 2 - 1).unsqueeze(1)
