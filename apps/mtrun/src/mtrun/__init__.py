"""mtrun: trains, evaluates and inspects whatever plugins of mt-adapters are installed."""

__version__ = "0.1.0"
