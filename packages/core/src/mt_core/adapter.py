"""The contract of an adaptation method: what it puts at each site of a frozen backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from .backbone import Encoder
from .site import Site
from .streams import Fork, Streams


class SiteModule(nn.Module):
    """A frozen module with something added, which treats every row of the batch alike and never hears of streams.

    Attributes:
        base: the frozen module it stands for. **Call** it, never read its weight in `forward`:
            ZeRO-3 gathers parameters when a module is called.
        unmergeable: why `delta` is None, for the message; empty where the class can always be merged.
    """

    unmergeable: ClassVar[str] = ""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def delta(self, task: str) -> Tensor | None:
        """What to add to `base.weight` to get this site's weight for `task`; None if no weight does the same."""
        return None

    def penalty(self) -> Tensor | None:
        """The terms of a regulariser of this site's parameters: (n,), or None. Called inside the forward of training,
        where ZeRO-3 has the parameters gathered; `Adapter.pool` makes one number of all sites' terms."""
        return None


class StreamModule(SiteModule):
    """A `SiteModule` that knows the streams: takes stacked streams in, gives stacked streams out, and may fork them.

    Parameters that belong to one stream alone are kept in a `ParameterDict` (or `ModuleDict`) under the stream's
    name (`str(stream)` without "~": a task, or tasks joined by "+"). Such a name is the promise that no other task's
    loss reaches the parameter.

    Attributes:
        full_before, full_after: the layout on either side when all tasks run. Parameters are made for these.
        before, after: the streams that really flow (fewer when only some tasks are asked for).
        fork: brings stacked streams from `before` to `after`.
    """

    def __init__(self, base: nn.Module, before: Streams, after: Streams | None = None) -> None:
        super().__init__(base)
        self.full_before, self.full_after = before, after or before
        self.bind(self.full_before, self.full_after)

    def needs(self, after: Streams) -> Streams:
        """Which of the arriving streams are needed to make `after`; by default, its parents."""
        parents = self.full_before.parents(after)
        return self.full_before.only([self.full_before[i] for i in parents])

    def bind(self, before: Streams, after: Streams) -> None:
        """Settle the streams that flow. What `forward` uses is worked out here, as plain integers and strings."""
        self.before, self.after = before, after
        self.fork = Fork(before, after)


@dataclass
class Adapter(ABC):
    """A parameter-efficient way to specialise one frozen backbone to several tasks.

    Subclasses are dataclasses: their fields are their options, `__post_init__` refuses what cannot work.

    Class attributes:
        usual_decoder: the name of its paper's decoder; empty: what suits the backbone.
        starts_as_identity: whether the features start as the frozen backbone's. Almost always true; a method that
            cannot says why.
    """

    usual_decoder: ClassVar[str] = ""
    starts_as_identity: ClassVar[bool] = True

    @abstractmethod
    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        """What to put at `site`. Asked once per site, in the order they run.

        Args:
            site: where.
            module: what is there now.
            streams: the streams that arrive.

        Returns:
            None to leave it frozen; `module` itself to train it as it is; a new module that stands for it: a
            `StreamModule` if it tells streams apart, otherwise any module that keeps the batch axis, best a
            `SiteModule`. A site that is replaced hides those inside it.
        """

    def attached(self, encoder: Encoder) -> None:  # noqa: B027 - most adapters have nothing to do
        """Called once by `attach`, when every site has been answered and all else is frozen. By default nothing.

        The place to train what is no site (`requires_grad_`), to let sites share a parameter, or to refuse an encoder
        that has not what the method needs.
        """

    def pool(self, terms: Tensor) -> Tensor:
        """The regulariser, from the terms of all sites: (n,) -> (). Their sum, unless a method says otherwise."""
        return terms.sum()


def private_tasks(parameter: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks a parameter belongs to by its name, as `StreamModule` promises; all of them if it is shared."""
    for part in parameter.split("."):
        group = part.split("+")
        if all(task in tasks for task in group):
            return tuple(group)
    return tuple(tasks)
