"""Panels: a row per picture, with the picture and, task by task, its label and its prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mt_core.task import Task

from .evaluation import Picture

WIDTH = 192  # of a cell, in pixels
GAP, MARGIN = 4, 22
INK, PAPER = (30, 30, 30), (255, 255, 255)


def draw(pictures: Sequence[Picture], tasks: Mapping[str, Task]) -> Image.Image:
    """A table of pictures: columns `image`, then label and prediction of each task; each row named by its picture."""
    names = list(pictures[0].predictions)
    columns = ["image", *(f"{name}: {what}" for name in names for what in ("label", "prediction"))]
    rows = [_row(picture, {name: tasks[name] for name in names}) for picture in pictures]
    return table(columns, rows, [picture.id for picture in pictures])


def table(columns: Sequence[str], rows: Sequence[Sequence[Image.Image]], names: Sequence[str]) -> Image.Image:
    """Cells of `WIDTH` pixels below the titles of their columns; each row with its name below."""
    height = max(cell.height for row in rows for cell in row)
    sheet = Image.new("RGB", (len(columns) * (WIDTH + GAP) + GAP, MARGIN + len(rows) * (height + MARGIN)), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for j, title in enumerate(columns):
        pen.text((GAP + j * (WIDTH + GAP), 4), title, INK, font)
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = MARGIN + i * (height + MARGIN)
        for j, cell in enumerate(row):
            sheet.paste(cell, (GAP + j * (WIDTH + GAP), top))
        pen.text((GAP, top + height + 3), name, INK, font)
    return sheet


def to_image(colours: Tensor) -> Image.Image:
    """(3, H, W) uint8 -> a picture"""
    return Image.fromarray(np.ascontiguousarray(colours.permute(1, 2, 0).numpy()))


def _row(picture: Picture, tasks: Mapping[str, Task]) -> list[Image.Image]:
    cells = [to_image((picture.image * 255).round().byte())]
    for name, task in tasks.items():
        cells += [to_image(task.colours(values[name])) for values in (picture.labels, picture.predictions)]
    return [scaled(cell) for cell in cells]


def scaled(cell: Image.Image) -> Image.Image:
    """A picture as wide as a cell."""
    return cell.resize((WIDTH, max(1, round(WIDTH * cell.height / cell.width))), Image.Resampling.BILINEAR)
