"""Layers of Hugging Face's PEFT as modules of an adapter: one for all streams, or a copy for each task.

PEFT is imported when the first layer is made, and only its public names are used.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from mt_core.adapter import SiteModule
from mt_core.errors import ConfigError
from mt_core.streams import Streams

from .per_task import PerTask

_PROMPTS = "it adds tokens to the input of a language model and replaces no layer; see vpt_shallow and vpt_deep"
_SHARED = "its layers share weights that PEFT keeps in the model around them, so a layer alone is another method"
_TOGETHER = "its layers are no method by themselves: "
REFUSED = {
    "prompt_tuning": _PROMPTS,
    "multitask_prompt_tuning": _PROMPTS,
    "p_tuning": _PROMPTS,
    "prefix_tuning": _PROMPTS,
    "cpt": _PROMPTS,
    "cartridge": _PROMPTS,
    "trainable_tokens": "it trains rows of a vocabulary's embedding, which a picture's encoder has not",
    "adaption_prompt": "it replaces the whole attention of a Llama model, not a layer",
    "shadow": "it runs a second network beside the model and replaces no layer",
    "vera": _SHARED,
    "pvera": _SHARED,
    "vblora": _SHARED,
    "unilora": _SHARED,
    "frod": _SHARED,
    "tinylora": _SHARED,
    "lily": _SHARED,
    "adalora": _TOGETHER + "ranks are moved between them after every optimiser step, by a call that no trainer makes",
    "xlora": _TOGETHER + "a classifier over the whole model mixes LoRAs that are trained already",
    "poly": _TOGETHER + "every call needs the ids of its tasks; here tasks are streams",
}
_OURS = ("peft_type", "target_modules")  # what the bridge says itself
_NAME = "peft"  # of the one set of weights in each of PEFT's layers


class _Model(nn.Module):
    """The smallest model that PEFT can adapt: one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


def peft() -> Any:
    """The package, imported now.

    Raises:
        ConfigError: saying what to install.
    """
    try:
        return import_module("peft")
    except ImportError as error:
        raise ConfigError(
            f"adapter peft needs the package peft, which cannot be imported ({error}); "
            f"pip install 'mt-adapters-baselines[peft]'"
        ) from error


def configuration(method: str, options: Mapping[str, Any]) -> Any:
    """PEFT's configuration of `method` for a single layer.

    Raises:
        ConfigError: if PEFT has no such method, or one that cannot work on single layers, or refuses the options.
    """
    if method in REFUSED:
        raise ConfigError(f"method={method} cannot adapt the layers of an encoder one by one: {REFUSED[method]}")
    classes = {kind.name.lower(): config for kind, config in peft().PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if method not in classes:
        known = ", ".join(sorted(classes.keys() - REFUSED))
        raise ConfigError(f"method={method}: PEFT {peft().__version__} has no such method; it has {known}")
    names = [field.name for field in dataclasses.fields(classes[method]) if field.init and field.name not in _OURS]
    if unknown := sorted(set(options) - set(names)):
        raise ConfigError(f"options={dict(options)}: {method} has no option {unknown[0]!r}; it has {', '.join(names)}")
    own: dict[str, Any] = {"feedforward_modules": []} if "feedforward_modules" in names else {}
    try:
        return classes[method](target_modules=["layer"], **own, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"options={dict(options)}: PEFT refuses them for {method}: {error}") from error


def adapted(base: nn.Module, config: Any) -> nn.Module:
    """PEFT's layer around `base`, which it calls but does not register: whoever holds the layer registers the base.

    Raises:
        ValueError: if PEFT cannot adapt such a layer, or not with these options, or would change the base.
    """
    before = {name: value.detach().clone() for name, value in base.named_parameters()}
    try:
        layer = peft().inject_adapter_in_model(copy.deepcopy(config), _Model(base), adapter_name=_NAME).layer
    except (ImportError, RuntimeError, TypeError) as error:
        raise ValueError(f"PEFT: {error}") from error
    found = [name for name, module in layer.named_children() if module is base]
    if len(found) != 1:
        raise ValueError(f"PEFT: {type(layer).__name__} does not keep the {type(base).__name__} as it is")
    if any(value.requires_grad or _differ(value, before[name]) for name, value in base.named_parameters()):
        raise ValueError("it changes or trains the frozen layer itself, which all tasks share and no artefact holds")
    del layer._modules[found[0]]
    object.__setattr__(layer, found[0], base)
    return layer  # type: ignore[no-any-return]


def _differ(a: Tensor, b: Tensor) -> bool:
    return not a.is_meta and not torch.equal(a, b)


def call(layer: nn.Module, x: Tensor) -> Tensor:
    """PEFT's layers are written for text, and some take nothing but (B, N, k). (B, ..., k) -> (B, ..., d)"""
    y: Tensor = layer(x.flatten(1, -2))  # (B, N, d)
    return y.view(*x.shape[:-1], -1)


def weight_change(layer: Any, base: nn.Module) -> Tensor | None:
    """What PEFT's own merging adds to `base.weight`; None if it cannot merge, or changes more than the weight."""
    merged = copy.deepcopy(layer)  # and the base with it
    try:
        merged.merge()
    except (AttributeError, NotImplementedError, TypeError):
        return None
    before, after = dict(base.named_parameters()), dict(merged.get_base_layer().named_parameters())
    if any(not torch.equal(after[name], value) for name, value in before.items() if name != "weight"):
        return None
    change: Tensor = after["weight"] - before["weight"]
    return change.detach()


class SharedPeft(SiteModule):
    """One of PEFT's layers, the same for every stream. (..., k) -> (..., d)"""

    unmergeable = "PEFT cannot express this method as a change of the layer's weight"

    def __init__(self, base: nn.Module, config: Any) -> None:
        super().__init__(base)
        self.layer = adapted(base, config)

    def forward(self, x: Tensor) -> Tensor:
        return call(self.layer, x)

    def delta(self, task: str) -> Tensor | None:
        return weight_change(self.layer, self.base)


class TaskPeft(PerTask):
    """One of PEFT's layers for each task, and a stream for each. (S * B, ..., k) -> (T * B, ..., d)

    PEFT's layers know one set of weights at a time, so the tasks run one after the other, frozen product included.
    """

    unmergeable = SharedPeft.unmergeable

    def __init__(self, base: nn.Module, streams: Streams, config: Any) -> None:
        super().__init__(base, streams)
        self.layers = nn.ModuleDict({task: adapted(base, config) for task in streams.carried.tasks})

    def forward(self, x: Tensor) -> Tensor:
        streams = self.fork(x).unflatten(0, (len(self.tasks), -1)).unbind()  # T of (B, ..., k)
        return torch.cat([call(self.layers[task], x) for task, x in zip(self.tasks, streams, strict=True)])

    def delta(self, task: str) -> Tensor | None:
        return weight_change(self.layers[task], self.base)
