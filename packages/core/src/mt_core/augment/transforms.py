"""Random transforms of samples: the picture and all its labels together, by chance that a seed decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ..dataset import Sample
from ..errors import ConfigError, DataError, PluginError
from ..labels import Label
from .kernels import rotate_image

Size = tuple[int, int]  # height, width

LUMA = torch.tensor([0.299, 0.587, 0.114])  # of red, green and blue in grey (ITU-R BT.601)


class Transform(Protocol):
    """Any change of a sample; all its chance comes from the generator."""

    def __call__(self, sample: Sample, generator: torch.Generator, /) -> Sample: ...


def seeded(seed: int, *key: int) -> torch.Generator:
    """A generator for one sample: `key` may be the epoch and the index. The same numbers give the same draws."""
    entropy = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0]) >> 1)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right, with a probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"flip: probability {self.probability}; expected a number from 0 to 1")

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        flips = _uniform(generator, 0, 1) < self.probability
        return _move(sample, F.horizontal_flip) if flips else sample


@dataclass(frozen=True)
class RandomRotation:
    """Turn about the centre by at most `degrees` either way, size kept; what comes from outside is black and void."""

    degrees: float

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ConfigError(f"rotation of {self.degrees} degrees; expected a number from 0 to 180")

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        angle = _uniform(generator, -self.degrees, self.degrees)
        return replace(sample, image=rotate_image(sample.image, angle), labels=_move_labels(sample, F.rotate, angle))


@dataclass(frozen=True)
class RandomZoom:
    """Show a window of 1 / s of the picture's height and width as a whole picture, s even in [low, high].

    Below 1 the window is larger than the picture, and black and void around it. The window's place is random.

    Attributes:
        low, high: range of the factor.
        size: of the result; None for the picture's own. So a picture is zoomed and resized with one resampling.
    """

    low: float
    high: float
    size: Size | None = None

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise ConfigError(f"zoom from {self.low} to {self.high}; expected 0 < low <= high")
        if self.size is not None:
            _check_size(self.size)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        height, width = sample.image.shape[-2:]
        factor = _uniform(generator, self.low, self.high)
        rows, columns = max(1, round(height / factor)), max(1, round(width / factor))
        top = round(_uniform(generator, 0, height - rows))
        left = round(_uniform(generator, 0, width - columns))
        size = list(self.size or (height, width))
        return _move(sample, F.resized_crop, top, left, rows, columns, size, antialias=True)


@dataclass(frozen=True)
class Resize:
    """Scale to a size, whatever the shape of the picture."""

    size: Size

    def __post_init__(self) -> None:
        _check_size(self.size)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        if tuple(sample.image.shape[-2:]) == tuple(self.size):
            return sample
        return _move(sample, F.resize, list(self.size), antialias=True)


@dataclass(frozen=True)
class ColourJitter:
    """Change the picture's brightness, contrast and saturation by factors within 1 - x ... 1 + x; labels stay."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name, strength in vars(self).items():
            if not 0 <= strength <= 1:
                raise ConfigError(f"jitter: {name} {strength}; expected a number from 0 to 1")

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        brightness, contrast, saturation = (
            _uniform(generator, 1 - strength, 1 + strength)
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        # each is a blend with black, with the mean grey, with the pixel's grey; together, one linear map per pixel
        pixels = brightness * sample.image.as_subclass(Tensor).float()
        grey = torch.tensordot(LUMA, pixels, dims=1)  # (H, W)
        shift = contrast * (1 - saturation) * grey + (1 - contrast) * grey.mean()
        changed = pixels.mul_(contrast * saturation).add_(shift).round_().clamp_(0, 255).to(torch.uint8)
        return replace(sample, image=tv_tensors.wrap(changed, like=sample.image))


@dataclass(frozen=True)
class Augment:
    """Transforms, one after the other.

    Raises:
        DataError: if a label has another size than its picture.
        PluginError: if a label has a type for which a transform has no kernel.
    """

    transforms: tuple[Transform, ...]

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        size = tuple(sample.image.shape[-2:])
        for name, label in sample.labels.items():
            if tuple(label.shape[-2:]) != size:
                raise DataError(
                    f"{sample.id}: the label of task {name} is {tuple(label.shape[-2:])}, the picture {size}; "
                    f"expected the same height and width; mend the file"
                )
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample


def training_transform(
    size: Size, flip: bool = True, rotation: float = 0.0, zoom: tuple[float, float] = (1.0, 1.0), jitter: float = 0.0
) -> Augment:
    """What a picture goes through in training; in this order, which resamples once, and once more if it rotates.

    Args:
        size: height and width of the result.
        flip: whether half of the pictures are mirrored.
        rotation: the largest angle, in degrees.
        zoom: lowest and highest factor.
        jitter: strength of the changes of brightness, contrast and saturation, 0 to 1.

    Raises:
        ConfigError: if one of them is out of range.
    """
    chosen: list[Transform] = []
    if flip:
        chosen.append(RandomFlip())
    if rotation:
        chosen.append(RandomRotation(rotation))
    chosen.append(Resize(size) if tuple(zoom) == (1, 1) else RandomZoom(*zoom, size))
    if jitter:
        chosen.append(ColourJitter(jitter, jitter, jitter))
    return Augment(tuple(chosen))


def evaluation_transform(size: Size) -> Augment:
    """The picture and its labels at one size, without chance: the generator is left alone. Raises ConfigError."""
    return Augment((Resize(size),))


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _check_size(size: Sequence[int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"size {tuple(size)}; expected a positive height and width")


def _move(sample: Sample, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Sample:
    """The same operation on the picture and on every label; labels take from the options what concerns them."""
    labels = _move_labels(sample, operation, *arguments, **options)
    return replace(sample, image=operation(sample.image, *arguments, **options), labels=labels)


def _move_labels(sample: Sample, operation: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Label]:
    """The labels after a functional of torchvision. Raises PluginError where a label has no kernel for it."""
    labels = {}
    for name, label in sample.labels.items():
        what = f"{sample.id}: the label of task {name}, a {type(label).__name__}, cannot follow `{operation.__name__}`"
        if not isinstance(label, Label):  # torchvision would take a plain tensor for a picture, and blend it
            raise PluginError(f"{what}: it is no mt_core.labels.Label; make it one that says what its values mean")
        try:
            labels[name] = operation(label, *arguments, **options)
        except TypeError as error:
            raise PluginError(f"{what}: {error}; give its type kernels: mt_core.augment.register_label") from error
    return labels
