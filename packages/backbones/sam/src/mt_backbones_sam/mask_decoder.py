"""SAM's mask decoder for many maps of one picture (Kirillov et al., ICCV 2023; modules from segment_anything).

SAM builds every part; the classes here take those parts over under the same names, and compute the same with less:

* A few prompt tokens face thousands of image tokens, so what SAM applies to the image tokens is turned round and
  applied to the prompt tokens: with T = 5 tokens and h = 8 heads, T h = 40 columns for its projections' 128.
* A picture's maps differ in a dense embedding that is the same at every place. To the first attention over the
  picture that is no difference, so it is taken once; in later places it rides on something small.
* Only mask 0 is computed, and no estimate of its quality.

B pictures, n maps of each, M = B n maps, N image tokens, C channels, D of each head. A head stands before its tokens.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from segment_anything import modeling
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn


class PerHead(nn.Module):
    """A Linear of SAM's attention, to be used head by head."""

    def __init__(self, linear: nn.Linear, heads: int) -> None:
        super().__init__()
        self.weight: Tensor = linear.weight
        self.bias: Tensor = linear.bias
        self.heads = heads


class Turned(PerHead):
    """A projection that the image tokens are spared: q . (W x + b) = (W' q) . x + b . q, with q from prompt tokens.

    (..., T, h * D) -> W' q (..., h * T, C) and b . q (..., h * T, 1)
    """

    def forward(self, q: Tensor) -> tuple[Tensor, Tensor]:
        q = q.unflatten(-1, (self.heads, -1)).transpose(-2, -3)  # (..., h, T, D)
        weight = self.weight.unflatten(0, (self.heads, -1))  # (h, D, C)
        bias = self.bias.unflatten(0, (self.heads, -1)).unsqueeze(-1)  # (h, D, 1)
        return (q @ weight).flatten(-3, -2), (q @ bias).flatten(-3, -2)


class Pooled(PerHead):
    """A projection of values, applied to their means instead. (..., h * T, C) -> (..., T, h * D)"""

    def forward(self, means: Tensor) -> Tensor:
        weight = self.weight.unflatten(0, (self.heads, -1)).mT  # (h, C, D)
        values: Tensor = means.unflatten(-2, (self.heads, -1)) @ weight  # (..., h, T, D)
        return values.transpose(-2, -3).flatten(-2) + self.bias  # (..., T, h * D)


class Spread(PerHead):
    """An output projection, applied to the values before attention mixes them.

    Each head's weights add up to one: so the bias, or whatever is the same everywhere, is mixed in unchanged when every
    head carries its share. values (M, T, h * D), constant (M, 1, C) -> (M, h * T, C)
    """

    def forward(self, values: Tensor, constant: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # (h, D, C)
        outputs: Tensor = values.unflatten(-1, (self.heads, -1)).transpose(-2, -3) @ weight  # (M, h, T, C)
        return (outputs + (constant + self.bias).unsqueeze(1) / self.heads).flatten(1, 2)


class TokenToImage(nn.Module):
    """Prompt tokens attend to the image tokens: `pool`, then `read`."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads = attention.num_heads
        self.scale = (attention.internal_dim // heads) ** -0.5
        self.q_proj, self.k_proj = attention.q_proj, Turned(attention.k_proj, heads)
        self.v_proj, self.out_proj = Pooled(attention.v_proj, heads), attention.out_proj

    def pool(self, queries: Tensor, keys: Tensor, image: Tensor) -> Tensor:
        """The means of the image tokens that each query sees, (M or 1, T, C), (M, N, C), (M, N, C) -> (M, h * T, C)"""
        columns, offset = self.k_proj(self.q_proj(queries) * self.scale)
        logits: Tensor = columns @ keys.mT + offset  # (M, h * T, N)
        return logits.softmax(-1) @ image

    def read(self, means: Tensor) -> Tensor:
        """(..., h * T, C) -> (..., T, C)"""
        return cast(Tensor, self.out_proj(self.v_proj(means)))


class ImageToToken(nn.Module):
    """The image tokens attend to the prompt tokens."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.scale = (attention.internal_dim // self.heads) ** -0.5
        self.q_proj, self.k_proj = Turned(attention.q_proj, self.heads), attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, Spread(attention.out_proj, self.heads)

    def forward(self, image: Tensor, keys: Tensor, values: Tensor, dense: Tensor) -> Tensor:
        """What is to be added to the image tokens of every map.

        Args:
            image: (B, N, C), positions included; `dense` is still to be added to them, for each map its own.
            keys, values: from the prompt tokens, (M, T, C).
            dense: (M, 1, C); the result brings it along.

        Returns:
            (B, n, N, C)
        """
        pictures = image.shape[0]  # not its len(), which torch.export would take for a constant
        columns, offset = self.q_proj(self.k_proj(keys) * self.scale)
        offset = offset + columns @ dense.mT  # (M, h * T, 1)
        logits = image @ columns.unflatten(0, (pictures, -1)).flatten(1, 2).mT  # (B, N, n * h * T)
        logits = logits + offset.view(pictures, 1, -1)
        weights: Tensor = logits.unflatten(-1, (-1, self.heads, keys.shape[1])).softmax(-1)  # (B, N, n, h, T)
        weights = weights.flatten(-2).transpose(1, 2)  # (B, n, N, h * T)
        outputs: Tensor = self.out_proj(self.v_proj(values), dense).unflatten(0, (pictures, -1))  # (B, n, h * T, C)
        return weights @ outputs


class TwoWayBlock(nn.Module):
    """Prompt tokens attend to each other, to the image, and the image to them."""

    def __init__(self, block: TwoWayAttentionBlock) -> None:
        super().__init__()
        self.self_attn, self.norm1 = block.self_attn, block.norm1
        self.cross_attn_token_to_image, self.norm2 = TokenToImage(block.cross_attn_token_to_image), block.norm2
        self.mlp, self.norm3 = block.mlp, block.norm3
        self.cross_attn_image_to_token, self.norm4 = ImageToToken(block.cross_attn_image_to_token), block.norm4
        self.first = block.skip_first_layer_pe

    def talk(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Self-attention: (K, T, C), (K, T, C) -> (K, T, C)"""
        if self.first:
            return cast(Tensor, self.norm1(self.self_attn(queries, queries, queries)))
        placed = queries + tokens
        return cast(Tensor, self.norm1(queries + self.self_attn(placed, placed, queries)))

    def look(self, queries: Tensor, tokens: Tensor, image: Tensor, keys: Tensor) -> Tensor:
        """What the prompt tokens see: (M or 1, T, C), the same, (M, N, C), the same -> (M, h * T, C)"""
        return self.cross_attn_token_to_image.pool(queries + tokens, keys, image)

    def exchange(
        self, queries: Tensor, tokens: Tensor, means: Tensor, image: Tensor, keys: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take in what was seen, and tell the image.

        (M, T, C), the same, (M, h * T, C), (B, N, C), the same, (M, 1, C) -> queries (M, T, C), image (M, N, C)
        """
        queries = self.norm2(queries + self.cross_attn_token_to_image.read(means))
        queries = self.norm3(queries + self.mlp(queries))
        update = self.cross_attn_image_to_token(keys, queries + tokens, queries, dense)  # (B, n, N, C)
        return queries, self.norm4((image.unsqueeze(1) + update).flatten(0, 1))


class TwoWayTransformer(nn.Module):
    """The blocks, and a last look of the mask token at the image."""

    def __init__(self, transformer: modeling.TwoWayTransformer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(block) for block in transformer.layers)
        self.final_attn_token_to_image = TokenToImage(transformer.final_attn_token_to_image)
        self.norm_final_attn = transformer.norm_final_attn

    def begin(self, tokens: Tensor, image: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        """What maps have in common: (K, T, C), (B, N, C), (N, C) -> queries (K, T, C), means (B, K, h * T, C)"""
        block = cast(TwoWayBlock, self.layers[0])
        queries = block.talk(tokens, tokens)
        every, placed = queries.flatten(0, 1).unsqueeze(0), tokens.flatten(0, 1).unsqueeze(0)  # (1, K * T, C)
        means = block.look(every, placed, image, image + pe).unflatten(1, (-1, *tokens.shape[:2]))  # (B, h, K, T, C)
        return queries, means.transpose(1, 2).flatten(2, 3)

    def forward(
        self, queries: Tensor, tokens: Tensor, means: Tensor, image: Tensor, pe: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rest, for each map: all (M, ...) but image (B, N, C), pe (N, C) -> mask token (M, C), image (M, N, C)"""
        first, *others = (cast(TwoWayBlock, layer) for layer in self.layers)
        queries, image = first.exchange(queries, tokens, means + dense, image, image + pe, dense)
        nothing = torch.zeros_like(dense)
        for block in others:
            keys = image + pe  # (M, N, C)
            queries = block.talk(queries, tokens)
            means = block.look(queries, tokens, image, keys)
            queries, image = block.exchange(queries, tokens, means, image, keys, nothing)
        last, mask = self.final_attn_token_to_image, queries[:, 1:2]  # after the IoU token comes that of mask 0
        mask = mask + last.read(last.pool(mask + tokens[:, 1:2], image + pe, image))
        return self.norm_final_attn(mask).squeeze(1), image


class Upscale(nn.Module):
    """A transposed convolution with kernel and stride 2, channels last. (M, H, W, C) -> (M, H, W, 2, 2, C')"""

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.weight: Tensor = convolution.weight  # (C, C', 2, 2)
        self.bias = cast(Tensor, convolution.bias)  # (C')

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.permute(2, 3, 1, 0)  # (2, 2, C', C)
        y: Tensor = F.linear(x, weight.flatten(0, 2), self.bias.repeat(4)).unflatten(-1, weight.shape[:3])
        return y


class MaskDecoder(nn.Module):
    """SAM's mask decoder, without prompts, for the maps of many channels. Its parameters have SAM's names and shapes.

    Args:
        sam: SAM's module, whose parts are taken over.
    """

    def __init__(self, sam: modeling.MaskDecoder) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(sam.transformer)
        self.iou_token, self.mask_tokens = sam.iou_token, sam.mask_tokens
        first, norm, _, second, _ = sam.output_upscaling
        self.output_upscaling = nn.Sequential(Upscale(first), _last(norm), nn.GELU(), Upscale(second), nn.GELU())
        self.output_hypernetworks_mlps = sam.output_hypernetworks_mlps
        self.iou_prediction_head = sam.iou_prediction_head

    def tokens(self) -> Tensor:
        """SAM's five tokens: (1, T, C)"""
        return torch.cat([rows(self.iou_token), rows(self.mask_tokens)]).unsqueeze(0)

    def forward(
        self, queries: Tensor, tokens: Tensor, means: Tensor, image: Tensor, pe: Tensor, dense: Tensor
    ) -> Tensor:
        """The maps of some channels, after `transformer.begin` has done what all channels share.

        Args:
            queries: (K, T, C), K = n or 1 for all alike; so are `tokens` and `means`.
            tokens: (K, T, C)
            means: (B, K, h * T, C)
            image: (B, C, H, W)
            pe: (N, C)
            dense: what tells the channels apart, (n, C).

        Returns:
            (B, n, 4H, 4W)
        """
        pictures, maps, size = image.shape[0], len(dense), image.shape[-2:]

        def every(x: Tensor) -> Tensor:
            return x.expand(pictures, maps, -1, -1).flatten(0, 1)  # (M, ..., C)

        mask, tokens_of_image = self.transformer(
            every(queries), every(tokens), every(means), image.flatten(2).mT, pe, every(dense.unsqueeze(1))
        )
        x = self.output_upscaling(tokens_of_image.unflatten(1, size))  # (M, H, W, 2, 2, 2, 2, C / 8)
        weights = self.output_hypernetworks_mlps[0](mask)  # (M, C / 8)
        x = (x.flatten(1, -2) @ weights.unsqueeze(-1)).unflatten(1, (*size, 2, 2, 2, 2)).squeeze(-1)
        x = x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 6).flatten(1, 3)  # (M, 4H, 4W)
        return x.unflatten(0, (pictures, maps))  # type: ignore[no-any-return]


def rows(table: nn.Embedding) -> Tensor:
    """All the rows of a table (N, C): looked up, not read, because ZeRO-3 gathers weights when a module is called."""
    return cast(Tensor, table(torch.arange(table.num_embeddings, device=table.weight.device)))


def _last(norm: modeling.mask_decoder.LayerNorm2d) -> nn.LayerNorm:
    """SAM's norm over channels, for channels last."""
    taken = nn.LayerNorm(len(norm.weight), eps=norm.eps, device=norm.weight.device)
    taken.weight, taken.bias = norm.weight, norm.bias
    return taken
