"""The contract of an adapter that looks at data before it is put into a backbone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .adapter import Adapter
from .errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from .dataset import Batch
    from .model import MultiTaskModel


@dataclass
class PlanningAdapter(Adapter):
    """An `Adapter` whose sites depend on the data, by way of a *plan*: plain JSON, worked out once, before `attach`.

    The plan becomes part of the model's description, so that loading a trained model needs no data. Without a plan
    the adapter must still know what to do with each site: parameters are counted that way.
    """

    @abstractmethod
    def plan(self, model: MultiTaskModel, samples: Iterable[Batch]) -> dict[str, Any]:
        """Look at the data.

        Args:
            model: a plain, frozen backbone with decoders that were fine-tuned on it, in evaluation mode. It may be
                changed as one likes: it is thrown away.
            samples: batches of one picture, each seen once.

        Returns:
            Plain values that JSON can hold.

        Raises:
            DataError: if the samples do not suffice.
        """

    @abstractmethod
    def planned(self, plan: Mapping[str, Any], tasks: Sequence[str]) -> Adapter:
        """The same adapter, made to follow a plan.

        Raises:
            ConfigError: if that is no plan of this adapter, or one for other tasks.
        """

    @abstractmethod
    def describe(self, plan: Mapping[str, Any]) -> str:
        """A plan as text for a terminal, several lines."""

    @abstractmethod
    def draw(self, plan: Mapping[str, Any]) -> Image:
        """A plan as a picture."""


def follow(adapter: Adapter, plan: Mapping[str, Any], tasks: Sequence[str], name: str) -> Adapter:
    """`adapter` as it follows `plan`; itself where there is none.

    Raises:
        ConfigError: if there is a plan but the adapter takes none, or another one.
    """
    if not plan:
        return adapter
    if not isinstance(adapter, PlanningAdapter):
        raise ConfigError(f"adapter {name} takes no plan, but one is given; leave it away")
    return adapter.planned(plan, tasks)
