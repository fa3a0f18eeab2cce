"""Several processes that train one model together: how they agree, and how they wait for each other."""

from __future__ import annotations

import os
import pickle
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from mt_core.errors import MTError

from .places import Place, met_by_all
from .signals import Terminated, unshielded

T = TypeVar("T")

EXPECTED = (MTError, Terminated, KeyboardInterrupt)  # what may end a run without being a bug
PATIENCE = 0.1  # seconds between two looks whether rank 0 is done


class LostError(RuntimeError):
    """Another process is gone; it knows why."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; by default there is this one alone.

    Attributes:
        rank: of this process.
        world: how many there are.
        local_world: how many of them are on this host.
    """

    rank: int = 0
    world: int = 1
    local_world: int = 1
    _control: Any = None  # a group on the CPU, so that agreeing does not wait for a device
    _store: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def agree(self, error: BaseException | None = None) -> None:
        """Raise on every rank what one of them has met, or nothing.

        All ranks call it in turn. An error goes before a signal, a lower rank before a higher.
        """
        if self.world == 1:
            if error is not None:
                raise error
            return
        flag = torch.tensor([0 if error is None else 1])
        with _losing():
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._control)
        if flag.item():
            found = self.gather(None if error is None else (type(error), str(error)))
            met = [
                (not issubclass(each[0], MTError), rank, each) for rank, each in enumerate(found) if each is not None
            ]
            _, rank, (kind, message) = min(met, key=lambda entry: entry[:2])
            with met_by_all():
                raise error if rank == self.rank and error is not None else kind(message)

    def alike(self, work: Callable[[], T]) -> T:
        """What each rank does by itself, needing no other; what one of them meets, all raise, and none has left yet."""
        if self.world == 1:
            return work()
        value, error = attempt(work)
        self.agree(error)
        return value  # type: ignore[return-value]  # there is one, as nobody met anything

    def gather(self, value: T) -> list[T]:
        """The value that each rank has, on every rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with _losing():
            dist.all_gather_object(found, value, group=self._control)
        return found

    def sum(self, x: Tensor) -> Tensor:
        """Add up a tensor over all ranks, in place."""
        if self.world > 1:
            with _losing():
                dist.all_reduce(x)
        return x

    def first_main(self, key: str, work: Callable[[], T]) -> T:
        """What rank 0 makes while the others wait, however long it takes; what it raises, all raise.

        Args:
            key: names the work; used once.
            work: gives plain values.
        """
        if self.world == 1:
            return work()
        if not self.is_main:
            while not self._store.check([key]):
                time.sleep(PATIENCE)
            value, error = pickle.loads(self._store.get(key))  # noqa: S301 - of our own rank 0
            if error is not None:
                met: BaseException = error[0](error[1])
                with met_by_all():
                    raise met
            return value  # type: ignore[no-any-return]
        try:
            value = work()
        except EXPECTED as error:
            self._store.set(key, pickle.dumps((None, (type(error), str(error)))))
            raise
        self._store.set(key, pickle.dumps((value, None)))
        return value


ALONE = Ranks()


def attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Do what may take long, open to signals: what it gives, or what it met that was to be expected."""
    try:
        with unshielded():
            return work(), None
    except EXPECTED as error:
        return None, error


@contextmanager
def joined(where: Place | None, device: torch.device, minutes: float) -> Iterator[Ranks]:
    """Within, this process is one of those that train together.

    Args:
        where: which one; None if it is the only one.
        device: that it computes on.
        minutes: how long it waits for the others before it gives up.
    """
    if where is None:
        yield ALONE
        return
    os.environ.update(MASTER_ADDR=where.address, MASTER_PORT=str(where.port))
    os.environ.update(RANK=str(where.rank), WORLD_SIZE=str(where.world), LOCAL_RANK=str(where.local))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(minutes=minutes)
    with _losing():
        store, rank, world = next(rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
        control = dist.new_group(backend="gloo", timeout=timeout) if backend != "gloo" else dist.group.WORLD
    try:
        yield Ranks(rank, world, where.local_world, control, PrefixStore("mtrun", store))
    except RuntimeError as error:  # from within the engine, or a metric
        if isinstance(error, LostError) or not _SAYS_LOST.search(str(error)):
            raise
        raise LostError(_lost(error)) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def _losing() -> Iterator[None]:
    """Within, what torch says when another process is gone becomes `LostError`."""
    try:
        yield
    except RuntimeError as error:  # gloo, NCCL and the store raise no class of their own
        raise LostError(_lost(error)) from error


_SAYS_LOST = re.compile("gloo/transport|NCCL error|remote process|Connection (reset|closed)")


def _lost(error: RuntimeError) -> str:
    return f"another rank cannot be reached: {str(error).splitlines()[0]}"
