"""The pictures that a user wants predictions for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mt_core.errors import ConfigError, DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def find_pictures(source: str) -> list[Path]:
    """The pictures that `input` means: one file, or those directly in a folder, by name.

    Raises:
        ConfigError: if no input is named.
        DataError: if there is nothing there, or two pictures would be written to the same files.
    """
    if not source:
        raise ConfigError("input is needed: a picture, or a folder of pictures; give input=DIR_OR_FILE")
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"input={path}: no such file or folder; give a picture, or a folder of pictures")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    if not found:
        raise DataError(f"input={path}: no picture in this folder; expected files ending in {', '.join(ENDINGS)}")
    stems: dict[str, Path] = {}
    for file in found:
        if (other := stems.setdefault(file.stem, file)) != file:
            raise DataError(f"{other} and {file} have the same name but for their ending; rename one")
    return found


def read_picture(path: Path) -> Tensor:
    """A picture as it is meant to be seen (EXIF orientation applied): (3, H, W) uint8.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # decoders fail in as many ways as a file can be damaged
        raise DataError(
            f"{path}: cannot be read as a picture ({type(error).__name__}: {error}); restore or remove it"
        ) from error
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
