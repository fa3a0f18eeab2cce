"""What every task and every label type has in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mt_core.errors import ConfigError
from mt_core.labels import Label
from mt_core.tasks import Depth, Segmentation


@pytest.mark.parametrize("name", ["Semseg", "sem-seg", "3d", "", "sem.seg", "sem seg"])
def test_a_tasks_name_can_name_its_parameters(name: str) -> None:
    with pytest.raises(ConfigError, match=f"task name '{name}': expected a lower-case word"):
        Depth(name)


def test_a_task_has_a_channel() -> None:
    with pytest.raises(ConfigError, match="task semseg: 0 channels; at least 1 is needed"):
        Segmentation("semseg", 0)


def test_a_loss_is_one_of_its_kind() -> None:
    with pytest.raises(ConfigError, match="task depth: no loss 'l2'; depth has l1"):
        Depth("depth").with_loss("l2")


def test_a_label_type_must_say_what_is_annotated() -> None:
    class Heat(Label):
        void, planes, dtype_ = -1.0, (1,), torch.float32

    with pytest.raises(NotImplementedError, match="Heat must say which of its pixels are annotated: define `valid`"):
        Heat.valid(Tensor())
