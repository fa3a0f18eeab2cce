"""TGLoRA: low-rank adaptation along a tree of task groups, as a plugin of mt-adapters."""
