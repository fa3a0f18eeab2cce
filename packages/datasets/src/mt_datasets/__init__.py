"""mt-datasets: annotated pictures for several dense prediction tasks."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_datasets() -> Mapping[str, type | str]:
    return {
        "rooms": "mt_datasets.rooms.dataset:Rooms",
        "nyud": "mt_datasets.nyud:NYUD",
        "pascal": "mt_datasets.pascal:PASCAL",
        "nyuv2": "mt_datasets.nyuv2:NYUv2",
        "cityscapes": "mt_datasets.cityscapes:Cityscapes",
        "folder": "mt_datasets.folder:Folder",
    }


@hookimpl
def mt_tasks() -> Mapping[str, type | str]:
    return {"inverse_depth": "mt_datasets.inverse_depth:InverseDepth"}
