"""Every data set that reads files keeps the contract of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt_core.dataset import Dataset
from mt_core.testing import DatasetConformance
from mt_datasets.cityscapes import Cityscapes, DepthForm
from mt_datasets.nyud import NYUD
from mt_datasets.nyuv2 import NYUv2
from mt_datasets.pascal import PASCAL

from .layouts import write_cityscapes, write_mtan, write_nyu_official, write_nyud, write_pascal


class TestNYUD(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return NYUD(root=str(write_nyud(tmp_path)))


class TestPASCAL(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return PASCAL(root=str(write_pascal(tmp_path)))


class TestNYUv2(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return NYUv2(root=str(write_mtan(tmp_path)))


class TestNYUv2WithTheFilesOfNYUD(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return NYUv2(root=str(write_nyud(tmp_path)), classes=40)


class TestNYUv2AsPublished(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return NYUv2(root=str(write_nyu_official(tmp_path)))


class TestCityscapesAsPublished(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return Cityscapes(root=str(write_cityscapes(tmp_path)), classes=19, depth=DepthForm.metres)


class TestCityscapes(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        return Cityscapes(root=str(write_mtan(tmp_path, labels={"label_7": 7}, normals=False)))
