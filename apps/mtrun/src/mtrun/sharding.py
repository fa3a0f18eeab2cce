"""Where DeepSpeed keeps the trained parameters and their moments on this rank, and how they become whole tensors.

At stage 0 every rank has all of them; at stages 1 and 2 an optimiser's moments, and the fp32 parameters it moves, are
dealt out in flat pieces; at stage 3 the parameters themselves are, too. This reads the pieces where they are (DeepSpeed
0.18 and 0.19), and puts them back into whatever pieces another stage or another number of ranks has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """The part of one parameter that this rank's optimiser moves.

    Attributes:
        name: of the parameter.
        shape: of the whole parameter.
        key: the tensor by which the optimiser knows what it moves; None where this rank has nothing of the parameter.
        start: where the part begins in `key`, flattened.
        offset: where it begins in the parameter, flattened.
        count: how many elements it has.
    """

    name: str
    shape: torch.Size
    key: Tensor | None
    start: int
    offset: int
    count: int

    def of(self, flat: Tensor) -> Tensor:
        """The part, in a tensor of the size of `key`."""
        return flat.view(-1)[self.start : self.start + self.count]


def pieces(engine: Any, parameters: Mapping[str, nn.Parameter]) -> list[Piece]:
    """This rank's part of every trained parameter, in the same order on all ranks."""
    stage = int(engine.zero_optimization_stage())
    find: Callable[[Any, nn.Parameter], tuple[Tensor | None, int, int, int]] = _FIND[stage]
    return [Piece(name, _shape(p), *find(engine.optimizer, p)) for name, p in parameters.items()]


def whole(
    found: list[Piece], read: Callable[[Piece], Tensor | None], device: torch.device, dealt_out: bool
) -> dict[str, Tensor]:
    """Whole tensors, on every rank.

    Args:
        found: this rank's pieces.
        read: `count` elements of a piece, or None for zeros.
        device: that the ranks compute on.
        dealt_out: whether ranks have different pieces. All of them call this together then.
    """
    buffer = torch.zeros(sum(piece.shape.numel() for piece in found), device=device)
    for piece, begin in _places(found):
        if piece.count and (values := read(piece)) is not None:
            buffer[begin + piece.offset : begin + piece.offset + piece.count] = values.detach().to(buffer)
    if dealt_out:
        dist.all_reduce(buffer)  # whoever has nothing of an element holds a zero
    return {piece.name: buffer[i : i + piece.shape.numel()].view(piece.shape).clone() for piece, i in _places(found)}


@torch.no_grad()
def deal_out(found: list[Piece], values: Mapping[str, Tensor], write: Callable[[Piece], Tensor]) -> None:
    """Put whole tensors into this rank's pieces; `write` gives the elements to be overwritten."""
    for piece in found:
        if piece.count and piece.name in values:
            part = values[piece.name].reshape(-1)[piece.offset : piece.offset + piece.count]
            write(piece).copy_(part)


def _places(found: list[Piece]) -> Iterator[tuple[Piece, int]]:
    begin = 0
    for piece in found:
        yield piece, begin
        begin += piece.shape.numel()


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


_Found = tuple[Tensor | None, int, int, int]


def _whole_parameter(optimizer: Any, parameter: nn.Parameter) -> _Found:
    """Stage 0: the optimiser is torch's, and moves the parameter itself."""
    return parameter, 0, 0, parameter.numel()


def _flat_partition(optimizer: Any, parameter: nn.Parameter) -> _Found:
    """Stages 1 and 2: a part of a flat fp32 copy, if this rank has any of it."""
    mapping = getattr(parameter, "_hp_mapping", None)
    if mapping is None:
        return None, 0, 0, 0
    flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
    mine, theirs = mapping.hp_fragment_address, mapping.lp_fragment_address
    return flat, int(mine.start), int(theirs.start), int(mine.numel)


def _own_partition(optimizer: Any, parameter: nn.Parameter) -> _Found:
    """Stage 3: each rank has an equal part of every parameter, the last one padded."""
    group, start, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    offset = dist.get_rank() * size
    count = max(0, min(size, _shape(parameter).numel() - offset))
    return optimizer.fp32_partitioned_groups_flat[group], int(start), offset, count


_FIND = {0: _whole_parameter, 1: _flat_partition, 2: _flat_partition, 3: _own_partition}
