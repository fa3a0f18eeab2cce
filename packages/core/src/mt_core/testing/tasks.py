"""What every kind of task must do."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
import torch

from ..discovery import registry
from ..errors import DataError
from ..task import Task
from ..tasks import task_from_json

SIZE = (6, 8)


class TaskConformance:
    """The contract of a kind of task. Set `entry` to a task of it."""

    entry: ClassVar[Task]

    def logits(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, self.entry.channels, *SIZE, generator=generator)

    def target(self) -> torch.Tensor:
        """An annotation of the task: what it would itself predict from other logits, as a label holds it."""
        predicted = self.entry.predict(self.logits().flip(0))
        empty = self.entry.label.empty(*SIZE)
        return predicted.reshape(2, *empty.shape).to(empty.dtype)

    def test_survives_json(self) -> None:
        description = json.loads(json.dumps(self.entry.to_json()))
        assert task_from_json(description, registry("tasks")) == self.entry

    def test_predictions_are_in_the_units_of_the_label(self) -> None:
        predicted = self.entry.predict(self.logits())
        assert predicted.shape == (2, *self.entry.label.empty(*SIZE).shape)

    @pytest.mark.parametrize("loss", ["default", "each"])
    def test_nothing_annotated_costs_nothing(self, loss: str) -> None:
        void = self.entry.label.empty(*SIZE).expand(2, *self.entry.label.empty(*SIZE).shape)
        for name in self.entry.losses if loss == "each" else [""]:
            logits = self.logits().requires_grad_()
            value = self.entry.with_loss(name).loss(logits, void)
            value.backward()
            assert value.item() == 0
            assert logits.grad is not None
            assert not logits.grad.any()

    def test_void_pixels_do_not_count(self) -> None:
        target = self.target()
        target[..., :3, :] = self.entry.label.void
        logits = self.logits()
        moved = logits.clone()
        moved[..., :3, :] += 5 * torch.randn(moved[..., :3, :].shape)
        for name in self.entry.losses:
            task = self.entry.with_loss(name)
            torch.testing.assert_close(task.loss(moved, target), task.loss(logits, target))

    def test_an_empty_annotation_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"void|no pixel"):
            self.entry.check(self.entry.label.empty(*SIZE), "file.png")

    def test_has_colours(self) -> None:
        picture = self.entry.colours(self.target()[0])
        assert picture.shape == (3, *SIZE)
        assert picture.dtype is torch.uint8
        assert not self.entry.colours(self.entry.label.empty(*SIZE)).any(), "void is black"
