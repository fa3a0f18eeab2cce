"""What a model costs: its parameters, and the multiplications of one prediction, from shapes alone (meta device)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.flop_counter import FlopCounterMode

from .adapter import SiteModule
from .model import MultiTaskModel

CONVENTION = (
    "published (MTLoRA, TGLoRA): Linear, convolution, norm and activation modules each time they are called, by the "
    "rules of ptflops 0.7, without attention's products and low-rank terms; full: every matrix product and convolution"
)


@dataclass(frozen=True)
class Count:
    """Parameters that are trained.

    Attributes:
        trainable: those with `requires_grad`: what papers print, and what an optimizer is given.
        live: those of them that some task's logits depend on, so that training can move them.
    """

    trainable: int
    live: int


@dataclass(frozen=True)
class Counts:
    """The parameters of a model.

    A trainable parameter is *live* if the gradient of a loss over all tasks' logits is given to it: if autograd's
    graph leads to it, whatever the gradient's value (the A of a low-rank pair whose B is still zero is live). The
    others are dead weight: a method declares them, but nobody reads what they compute. Example: the shared pair of
    MTLoRA's very last fc2, whose stream ends where only the tasks' side streams are read. A regulariser alone makes
    no parameter live.

    Attributes:
        total: all parameters, frozen ones too, each once however often it is used.
        groups: where the trained ones are: `adapter` (what site modules add to their `base`), the role of the site
            for trained parts of the backbone (`norm`, `patch_embed`, ...; `backbone` where there is no site) and for
            replacements that are no `SiteModule`, and `decoder.TASK`.
    """

    total: int
    groups: dict[str, Count]

    @property
    def trainable(self) -> int:
        """Parameters with `requires_grad`."""
        return sum(count.trainable for count in self.groups.values())

    @property
    def live(self) -> int:
        """Trainable parameters that get a gradient."""
        return sum(count.live for count in self.groups.values())

    @property
    def frozen(self) -> int:
        """Parameters that are never trained."""
        return self.total - self.trainable

    def to_json(self) -> dict[str, Any]:
        """Exact counts, as plain values."""
        groups = {name: asdict(count) for name, count in self.groups.items()}
        return {"trainable": self.trainable, "live": self.live, "total": self.total, "groups": groups}

    @property
    def mib(self) -> float:
        """Size of the trainable parameters in float32, in MiB (2^20 bytes)."""
        return self.trainable * 4 / 2**20


def report(model: MultiTaskModel, image_size: tuple[int, int]) -> dict[str, Any]:
    """Everything here in plain values, for JSON: exact counts, `mib` to 2 decimals, GMACs to 4 significant digits."""
    counts = count_parameters(model, image_size)
    rounded = {
        part: {name: float(f"{cost:.4g}") for name, cost in found.items()}
        for part, found in costs(model, image_size).items()
    }
    return {
        **counts.to_json(),
        "frozen": counts.frozen,
        "mib": round(counts.mib, 2),
        "gmacs": {**rounded["model"], "image_size": list(image_size)},
        "encoder_gmacs": rounded["encoder"],
        "convention": CONVENTION,
    }


def count_parameters(model: MultiTaskModel, image_size: tuple[int, int]) -> Counts:
    """Count the parameters of a model on any device, which is left as it was.

    Args:
        model: with all its tasks, whichever are selected at the moment.
        image_size: (height, width) it was built for: what is live is found by a forward and a backward pass.
    """
    alive = live_parameters(model, image_size)
    roles = {site.path: str(site.role) for site in model.attachment.sites}
    groups = {"adapter": Count(0, 0)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group, size = _group(model, name, roles), parameter.numel()
            so_far = groups.get(group, Count(0, 0))
            groups[group] = Count(so_far.trainable + size, so_far.live + (size if name in alive else 0))
    return Counts(sum(parameter.numel() for parameter in model.parameters()), groups)


def live_parameters(model: MultiTaskModel, image_size: tuple[int, int]) -> set[str]:
    """The names of those trainable parameters that some task's logits depend on in training. See `Counts`."""
    shapes = shapes_of(model)
    shapes.train().select(shapes.tasks)
    logits = _forward(shapes, 2, image_size)  # two pictures: batch norm refuses to train on a single value per channel
    reached = _leaves([x.grad_fn for x in logits.values()])
    return {name for name, parameter in shapes.named_parameters() if parameter in reached}


def gmacs(model: MultiTaskModel, image_size: tuple[int, int]) -> dict[str, float]:
    """Billions of multiply-accumulates to predict the selected tasks for one image, by two conventions.

    `full` is every matrix product and every convolution that runs, attention and low-rank terms included; nothing
    elementwise.

    `published` is what the MTLoRA and TGLoRA papers print: modules counted by hooks each time they are called, with
    the rows they are really given (frozen modules inside an adapter too), by the rules of ptflops 0.7:

        Linear                           rows x in x out, + out once per call (not per row) if it has a bias
        convolution                      output positions x weights, + outputs if it has a bias
        layer norm, activation           elements
        batch, instance and group norm   elements, twice if it is affine

    All else is free: products outside such modules (attention's, low-rank terms written with `@`), additions,
    pooling, interpolation, dropout. A bottleneck adapter made of Linear modules does count.

    Args:
        model: on any device; it is left as it was.
        image_size: (height, width) it was built for.
    """
    return costs(model, image_size)["model"]


def costs(model: MultiTaskModel, image_size: tuple[int, int]) -> dict[str, dict[str, float]]:
    """As `gmacs`, of the whole `model` and of the `encoder` in it: {part: {convention: GMACs}}."""
    shapes = shapes_of(model).eval().requires_grad_(False)  # the counter's own hooks trip over trainable arguments
    rules = {module: rule for module in shapes.modules() if (rule := _rule(module))}
    published: list[int] = []
    found: dict[str, dict[str, float]] = {}

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        published.append(rules[module](module, output))

    def note(part: str) -> None:
        found[part] = {"published": sum(published) / 1e9, "full": full.get_total_flops() / 2e9}

    for module in rules:
        module.register_forward_hook(count)
    shapes.encoder.register_forward_hook(lambda *_: note("encoder"))  # nothing runs before it
    with torch.no_grad(), FlopCounterMode(display=False) as full:
        _forward(shapes, 1, image_size)
    note("model")
    return found


def shapes_of(model: MultiTaskModel) -> MultiTaskModel:
    """A copy of the model without values, to be used up: no memory is taken, and the model cannot be disturbed."""
    memo: dict[int, Any] = {id(x): torch.empty_like(x, device="meta") for x in model.buffers()}
    for x in model.parameters():
        memo[id(x)] = nn.Parameter(torch.empty_like(x, device="meta"), requires_grad=x.requires_grad)
    return copy.deepcopy(model, memo)  # the memo says that values are already copied


def _forward(shapes: MultiTaskModel, batch: int, image_size: tuple[int, int]) -> dict[str, Tensor]:
    images = torch.empty(batch, 3, *image_size, dtype=shapes.mean.dtype, device="meta")  # (B, 3, H, W)
    with torch.random.fork_rng(devices=[]):
        return shapes(images)  # type: ignore[no-any-return]


def _leaves(ends: Iterable[Node | None]) -> set[Tensor]:
    """The parameters that the graph of a forward pass leads back to: what a backward pass would give a gradient."""
    found: set[Tensor] = set()
    known: set[Node] = set()
    todo = list(ends)
    while todo:
        node = todo.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(variable)
        todo += [before for before, _ in node.next_functions]
    return found


def _group(model: MultiTaskModel, parameter: str, roles: dict[str, str]) -> str:
    """Which of `Counts.groups` a parameter belongs to."""
    head, _, path = parameter.partition(".")
    if head == "decoders":
        return f"decoder.{path.partition('.')[0]}"
    owners = [path[:i] for i, letter in enumerate(path) if letter == "."]  # the modules around it, outermost first
    for owner in owners:
        module = model.encoder.get_submodule(owner)
        if isinstance(module, SiteModule) and not path.startswith(f"{owner}.base."):
            return "adapter"
    return next((roles[owner] for owner in reversed(owners) if owner in roles), "backbone")


def _linear(module: Any, y: Tensor) -> int:
    return y.numel() * int(module.in_features) + (0 if module.bias is None else int(module.out_features))


def _convolution(module: Any, y: Tensor) -> int:
    positions = y.numel() // int(module.out_channels)
    return positions * int(module.weight.numel()) + (0 if module.bias is None else y.numel())


def _affine_norm(module: Any, y: Tensor) -> int:
    return y.numel() * (2 if module.affine else 1)


def _elements(module: Any, y: Tensor) -> int:
    return y.numel()


_Rule = Callable[[Any, Tensor], int]  # the module and its output -> multiply-accumulates

_RULES: dict[tuple[type[nn.Module], ...], _Rule] = {
    (nn.Linear,): _linear,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _convolution,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm): _affine_norm,
    (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d): _affine_norm,
    (nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU): _elements,
}


def _rule(module: nn.Module) -> _Rule | None:
    return next((rule for kinds, rule in _RULES.items() if isinstance(module, kinds)), None)
