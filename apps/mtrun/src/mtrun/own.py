"""The config groups that mtrun itself fills; plugins fill the others."""

from __future__ import annotations

from .balancers import BALANCERS
from .engine import ENGINES

OWN = {"engine": ENGINES, "balancer": BALANCERS}
