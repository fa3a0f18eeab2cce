"""Sites: the places where a backbone lets an adapter in, and the small modules where streams meet and leave."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from torch import Tensor, nn

from .streams import Fork, Streams


class Role(StrEnum):
    """What a site does, whatever the backbone calls it."""

    patch_embed = auto()
    prompts = auto()
    norm = auto()
    qkv = auto()
    q = auto()
    kv = auto()
    pos_bias = auto()
    proj = auto()
    mlp = auto()
    fc1 = auto()
    fc2 = auto()
    merge = auto()
    join = auto()  # type: ignore[assignment]  # a str has a method of that name, which no role needs
    tap = auto()


LINEAR = (Role.qkv, Role.q, Role.kv, Role.proj, Role.fc1, Role.fc2, Role.merge)  # what linear layers do


@dataclass(frozen=True)
class Site:
    """A replaceable module of a backbone. Sites are listed in the order they run; a site stands before those inside it.

    Attributes:
        path: where it is, as in `encoder.get_submodule(path)`.
        role: what it does.
        stage: the stage it belongs to, from 0.
        last: whether it lies in the last block of its stage.
        reads: path of the site whose output it reads, "" for the image; None for the site before it.
            A join reads two: this one, and the site before it.
        block: the block it belongs to, counted from 0 over the whole encoder; outside of blocks, the one before it.
        parts: widths of the outputs fused in one matrix, (C, C, C) for q, k and v.
        stages: how many stages the encoder has; filled in when an adapter is attached.
    """

    path: str
    role: Role
    stage: int
    last: bool = False
    reads: str | None = None
    parts: tuple[int, ...] = ()
    block: int = 0
    stages: int = 1

    @property
    def structural(self) -> bool:
        """Whether it belongs to the mechanism (a join or a tap) and is never offered to an adapter."""
        return self.role in (Role.join, Role.tap)

    def among(self, roles: Collection[str]) -> bool:
        """Whether roles name it. Where q and kv stand apart, they count as the fused qkv of the papers."""
        return self.role in roles or (self.role in (Role.q, Role.kv) and Role.qkv in roles)


def block_sites(
    path: str, attention: Sequence[Site], *, entrance: str, stage: int, last: bool, number: int
) -> list[Site]:
    """The sites of the usual transformer block: x + attn(norm1(x)), and then x + mlp(norm2(x)).

    Its modules are `norm1`, `attn`, `residual1`, `norm2`, `mlp` (with `fc1` and `fc2` in it) and `residual2`.

    Args:
        path: of the block.
        attention: the sites of its attention, their paths as seen from the block; the first reads `norm1`.
        entrance: path of the site whose output the block reads.
        stage, last, number: as `Site` has them (there `block`).
    """
    inside = [
        Site("norm1", Role.norm, stage, reads=""),
        *attention,
        Site("residual1", Role.join, stage, reads=""),
        Site("norm2", Role.norm, stage),
        Site("mlp", Role.mlp, stage),
        Site("mlp.fc1", Role.fc1, stage, reads="norm2"),
        Site("mlp.fc2", Role.fc2, stage),
        Site("residual2", Role.join, stage, reads="residual1"),
    ]
    return [
        replace(
            site,
            path=f"{path}.{site.path}",
            # the entrance is to a block what the image is to the encoder
            reads=entrance if site.reads == "" else site.reads and f"{path}.{site.reads}",
            last=last,
            block=number,
        )
        for site in inside
    ]


_ANY = Streams.trunk(["any"])  # a plain backbone has one stream, whatever the tasks


class Join(nn.Module):
    """Where two paths meet: brings both to the streams of the one that forked more. (a, b) -> (a, b)"""

    def __init__(self) -> None:
        super().__init__()
        self.bind(_ANY, _ANY, _ANY)

    @staticmethod
    def meet(left: Streams, right: Streams) -> Streams:
        """The streams after the paths have met.

        Raises:
            ValueError: if neither path is a further fork of the other.
        """
        if left.forks_into(right):
            return right
        if right.forks_into(left):
            return left
        raise ValueError(f"{left} and {right} cannot meet: neither is a further fork of the other")

    def bind(self, left: Streams, right: Streams, after: Streams) -> None:
        """Settle which streams arrive on either side, and which leave."""
        self.left, self.right = Fork(left, after), Fork(right, after)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(a), self.right(b)


class Residual(Join):
    """x + branch. A module of its own, so that streams may fork inside the branch."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:  # type: ignore[override]
        x, branch = super().forward(x, branch)
        return x + branch


class Prompts(nn.Module):
    """The entrance of a block, where tokens that are no part of the picture may join it. By default none do.

    What stands here is called with the block's input x (S * B, ..., C) and with the prompts that come out of the block
    before, (S * B, P, C) or None, and gives both for this block: as they are, or others. A `StreamModule` forks x and
    gives prompts for every stream that leaves. Inside the block prompts are tokens like all others; only a backbone
    for which a paper says how has sites of this role.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, prompts: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return x, prompts


class Tap(nn.Module):
    """The end of a stage: hands out the features of every stream, and carries on without the side streams.

    x (S * B, ...) -> the same x, for the decoders, and what goes on (S' * B, ...)
    """

    def __init__(self) -> None:
        super().__init__()
        self.bind(_ANY, _ANY, _ANY)

    def bind(self, before: Streams, features: Streams, after: Streams) -> None:
        """Settle which streams arrive, which are handed out as features, and which go on."""
        self.hand_out, self.carry = Fork(before, features), Fork(before, after)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.hand_out(x), self.carry(x)
