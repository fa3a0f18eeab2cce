"""From a description of a model (names and options, plain values) to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .adapter import Adapter
from .backbone import Backbone, Encoder
from .decoder import Decoder
from .discovery import registry
from .errors import CheckpointError, ConfigError
from .model import MultiTaskModel
from .options import from_dict, to_dict
from .planning import follow
from .task import Task
from .tasks import task_from_json
from .weights import load_into, state_hash


@dataclass(frozen=True)
class Entry:
    """The name of a plugin's entry and the options it is used with."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


LARGEST_SIDE = 16384  # pixels; a damaged description must not ask for all memory


@dataclass(frozen=True)
class ModelSpec:
    """Everything that determines a model but its trained weights. Plain values: it is what an artefact records.

    Attributes:
        image_size: (height, width) of the pictures it is built for.
        tasks: descriptions as `Task.to_json` gives them, in order.
        seed: where random initialisation starts, the base's included when it has no pretrained weights.
        plan: what a `PlanningAdapter` found in the data; empty without.
    """

    backbone: Entry
    adapter: Entry
    decoder: Entry
    tasks: tuple[dict[str, Any], ...]
    image_size: tuple[int, int]
    seed: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(1 <= side <= LARGEST_SIDE for side in self.image_size):
            raise ConfigError(
                f"image_size={list(self.image_size)}: expected [height, width] in pixels, up to {LARGEST_SIDE}"
            )

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Read a description back.

        Raises:
            ConfigError: if a field is missing, unknown or of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"model description: expected an object, found {type(values).__name__}")
        plain = dict(values)
        for kind in ("backbone", "adapter", "decoder"):
            if not isinstance(plain.get(kind), Mapping):
                raise ConfigError(f"model description: {kind} is missing; expected its name and options")
            plain[kind] = from_dict(Entry, plain[kind], f"model description: {kind}")
        return from_dict(cls, plain, "model description")


@dataclass(frozen=True)
class Origin:
    """What a model remembers of how it was built: the fields of `Built`, without the model."""

    spec: ModelSpec
    base: str
    random: bool


@dataclass
class Built:
    """A model, what it was built from, and the identity of its frozen weights.

    Attributes:
        base: SHA-256 of the plain encoder before anything was trained ("" on the meta device).
        random: whether the backbone has no pretrained weights.
    """

    model: MultiTaskModel
    spec: ModelSpec
    base: str
    random: bool


def entry(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """The options object of an installed plugin.

    Raises:
        ConfigError: if it is not installed, or refuses the options.
    """
    return from_dict(registry(kind)[name], options, f"{kind[:-1]} {name}")


def usual_decoder(backbone: Backbone, adapter: Adapter) -> str:
    """The decoder that `decoder=auto` takes: what the backbone brings for its features, else that of the adapter's
    paper, else hrnet."""
    return backbone.usual_decoder() or adapter.usual_decoder or "hrnet"


def spec_of(
    backbone: tuple[str, Backbone],
    adapter: tuple[str, Adapter],
    decoder: tuple[str, Decoder],
    tasks: Sequence[Task],
    image_size: tuple[int, int],
    seed: int = 0,
) -> ModelSpec:
    """The description of a model from names and options objects, with what the backbone left open settled."""
    return ModelSpec(
        backbone=Entry(backbone[0], to_dict(backbone[1].settled(decoder[0]))),
        adapter=Entry(adapter[0], to_dict(adapter[1])),
        decoder=Entry(decoder[0], to_dict(decoder[1])),
        tasks=tuple(task.to_json() for task in tasks),
        image_size=image_size,
        seed=seed,
    )


def build(spec: ModelSpec, device: str | torch.device = "cpu") -> Built:
    """Build a model with its pretrained weights. On the "meta" device it has shapes only.

    Raises:
        ConfigError: if a name is not installed, or an option or the image size cannot be.
        CheckpointError: if pretrained weights cannot be read or do not fit.
    """
    backbone: Backbone = entry("backbones", spec.backbone.name, spec.backbone.options)
    backbone = backbone.settled(spec.decoder.name)  # a description that `spec_of` did not make may leave things open
    adapter: Adapter = entry("adapters", spec.adapter.name, spec.adapter.options)
    decoder: Decoder = entry("decoders", spec.decoder.name, spec.decoder.options)
    kinds = registry("tasks")
    tasks = [task_from_json(description, kinds) for description in spec.tasks]
    adapter = follow(adapter, spec.plan, [task.name for task in tasks], spec.adapter.name)
    meta = torch.device(device).type == "meta"
    with _seeded(spec.seed), torch.device("meta" if meta else "cpu"):
        encoder = backbone.build(spec.image_size)
        loaded = False if meta else _load_pretrained(backbone, encoder, spec.backbone.name)
        base = "" if meta else state_hash(encoder.state_dict())
        model = MultiTaskModel(encoder, adapter, decoder, tasks)
    model.origin = Origin(spec, base, random=not loaded)
    return Built(model.to(device), spec, base, random=not loaded)


def _load_pretrained(backbone: Backbone, encoder: Encoder, name: str) -> bool:
    state = backbone.pretrained_state(encoder)
    if state is None:
        return False
    load_into(encoder, state, f"checkpoint {backbone.checkpoint or 'pretrained'} for backbone {name}")
    if bad := [key for key, value in encoder.state_dict().items() if not bool(torch.isfinite(value).all())]:
        raise CheckpointError(f"checkpoint {backbone.checkpoint} for backbone {name}: {bad[0]} holds NaN or infinity")
    return True


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator started from `seed`, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
