"""The whole contract of an adapter, on every installed backbone."""

import pytest

from mt_adapters_bottleneck import Bottleneck
from mt_core import ConfigError
from mt_core.testing import AdapterConformance


class TestBottleneck(AdapterConformance):
    entry = Bottleneck(width=4)


def test_a_bottleneck_has_some_width() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.width=0: expected at least 1"):
        Bottleneck(width=0)
