"""The conformance kit: inherit a class, name your entry, and pytest checks the whole contract.

    from mt_core.testing import AdapterConformance

    class TestMine(AdapterConformance):
        entry = MyAdapter(width=4)

Adapters and decoders are checked on the miniature of every registered backbone. Needs `pip install mt-core[testing]`.
"""

from __future__ import annotations

from .adapters import AdapterCase, AdapterConformance
from .backbones import BackboneConformance
from .datasets import DatasetConformance
from .decoders import DecoderConformance
from .tasks import TaskConformance

__all__ = [
    "AdapterCase",
    "AdapterConformance",
    "BackboneConformance",
    "DatasetConformance",
    "DecoderConformance",
    "TaskConformance",
]
