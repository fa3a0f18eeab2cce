"""A plan as a picture: the similarities as a heat map, the groups as a tree (as in figure 4 of the paper)."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

from .plan import Plan

Colour = tuple[int, int, int]

INK, SOFT, LINE, PAPER, BLANK = (33, 37, 41), (108, 117, 125), (173, 181, 189), (255, 255, 255), (233, 236, 239)
ALIKE, CONFLICT = (31, 119, 180), (214, 69, 65)  # the ends of the heat map: cosines above 0, and below
GROUPS = (
    (78, 121, 167), (242, 142, 43), (89, 161, 79), (176, 122, 161), (225, 87, 89),
    (118, 183, 178), (156, 117, 95), (201, 148, 10), (121, 112, 110), (211, 114, 149),
)  # fmt: skip
CELL, STEP, MARGIN, NODE = 92, 116, 40, 19  # pixels: least sizes of a cell and of a stage; a border; a node's radius
TEXT, SMALL, TITLE = 20, 17, 24  # sizes of letters


def as_picture(plan: Plan) -> Image.Image:
    """Matrix on the left, tree on the right, in the same order of tasks."""
    tasks = len(plan.tasks)
    names = round(max(_width(task, TEXT) for task in plan.tasks)) + 14
    cell = max(CELL, round(max(_width(task, SMALL) for task in plan.tasks)) + 24)
    step = max(STEP, min(2 * STEP, cell * (tasks - 1) // len(plan.groups)))
    left, top = MARGIN + names, MARGIN + 2 * TITLE  # the matrix's corner
    tree = left + cell * tasks + 2 * MARGIN
    leaves = tree + round(_width("decoders", TEXT)) + 28
    width = max(leaves + cell * tasks, tree + round(_width("task groups", TITLE))) + MARGIN
    height = top + max(cell * tasks + 4 * TEXT, step * len(plan.groups) + 2 * NODE) + MARGIN
    image = Image.new("RGB", (width, height), PAPER)
    canvas = ImageDraw.Draw(image)
    _write(canvas, (MARGIN, MARGIN), "similarity of gradients", TITLE, anchor="lm")
    _matrix(canvas, plan, left, top, cell)
    _write(canvas, (tree, MARGIN), "task groups", TITLE, anchor="lm")
    place = {task: leaves + cell * i + cell // 2 for i, task in enumerate(plan.leaves)}
    _tree(canvas, plan, place, [top + NODE + step * row for row in range(len(plan.groups) + 1)])
    _stages(canvas, tree, [top + NODE + step * row for row in range(len(plan.groups) + 1)])
    return image


def _matrix(canvas: ImageDraw.ImageDraw, plan: Plan, left: int, top: int, cell: int) -> None:
    """A square for each pair: blue where they agree, red where they conflict, against the strongest pair."""
    order = [plan.tasks.index(task) for task in plan.leaves]
    bottom = top + cell * len(order)
    strongest = max((abs(plan.similarity[i][j]) for i in order for j in order if i != j), default=0.0) or 1.0
    for row, i in enumerate(order):
        _write(canvas, (left - 14, top + row * cell + cell // 2), plan.tasks[i], TEXT, anchor="rm")
        _write(canvas, (left + row * cell + cell // 2 - 1, bottom + TEXT // 2), plan.tasks[i], SMALL)
        for column, j in enumerate(order):
            x, y, part = left + column * cell, top + row * cell, plan.similarity[i][j] / strongest
            fill, colour = (BLANK, SOFT) if i == j else (_heat(part), PAPER if abs(part) > 0.6 else INK)
            canvas.rectangle((x, y, x + cell - 3, y + cell - 3), fill=fill)
            text = "1" if i == j else f"{plan.similarity[i][j]:.3f}"
            _write(canvas, (x + cell // 2 - 1, y + cell // 2 - 1), text, TEXT, colour)
    note = f"mean cosine over {plan.examples} pictures"
    _write(canvas, (left - 1, bottom + 5 * TEXT // 2), note, SMALL, SOFT, anchor="lm")


def _tree(canvas: ImageDraw.ImageDraw, plan: Plan, place: dict[str, int], heights: list[int]) -> None:
    """A row for each stage, and one for the decoders; a node stands above its tasks and says how many they are."""
    rows = [*plan.groups, tuple((task,) for task in plan.leaves)]
    for above, groups, start, end in zip(rows, rows[1:], heights, heights[1:], strict=False):
        for group in groups:
            parent = next(larger for larger in above if set(group) <= set(larger))
            canvas.line([(_centre(parent, place), start), (_centre(group, place), end)], fill=LINE, width=4)
    for groups, y in zip(plan.groups, heights, strict=False):
        for group in groups:
            x, first = _centre(group, place), min(plan.leaves.index(task) for task in group)
            canvas.ellipse((x - NODE, y - NODE, x + NODE, y + NODE), fill=GROUPS[first % len(GROUPS)])
            _write(canvas, (x, y), str(len(group)), TEXT, PAPER)
    for task, x in place.items():
        half, y = _width(task, SMALL) / 2 + 9, heights[-1]
        canvas.rounded_rectangle((x - half, y - 17, x + half, y + 17), 8, PAPER, LINE, 2)
        _write(canvas, (x, y), task, SMALL)


def _stages(canvas: ImageDraw.ImageDraw, left: int, heights: list[int]) -> None:
    names = [*(f"stage {number}" for number in range(1, len(heights))), "decoders"]
    for name, y in zip(names, heights, strict=True):
        _write(canvas, (left, y), name, TEXT, SOFT, anchor="lm")


def _centre(group: tuple[str, ...], place: dict[str, int]) -> float:
    return sum(place[task] for task in group) / len(group)


def _heat(part: float) -> Colour:
    """From white at 0 to blue at 1, or red at -1."""
    end, amount = (ALIKE if part > 0 else CONFLICT), min(1.0, abs(part))
    red, green, blue = (round(255 + amount * (channel - 255)) for channel in end)
    return red, green, blue


def _write(
    canvas: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour = INK,
    anchor: str = "mm",
) -> None:
    canvas.text(at, text, fill=colour, font=_font(size), anchor=anchor)


def _width(text: str, size: int) -> float:
    return _font(size).getlength(text)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)
