"""How DeepSpeed is started: found, silenced, and given every setting."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore

from mt_core.dataset import Batch
from mt_core.errors import ConfigError
from mt_core.model import MultiTaskModel, Objective

from .balancers import Balancer
from .recipe import Precision, TrainerOptions
from .stepping import autocast, balanced

if TYPE_CHECKING:
    from .deepspeed_engine import DeepSpeedEngine


def deepspeed_module() -> Any:
    """The module, which has nothing to say but errors, and says them on stderr. Raises ConfigError."""
    logging.getLogger("DeepSpeed").addFilter(_is_error)  # what it says while it is imported, too
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(
            f"engine=deepspeed needs DeepSpeed, which is not here ({error}); pip install 'mtrun[deepspeed]'"
        ) from error
    for handler in deepspeed.utils.logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = sys.stderr  # stdout is for results; setStream would flush a stream that may be closed
    return deepspeed


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def started(device: torch.device) -> Any:
    """DeepSpeed, silent, on a process group: a single process needs one, too, and no port for it."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    deepspeed = deepspeed_module()
    warnings.filterwarnings("ignore", _DEPRECATED, FutureWarning)  # once a step, and DeepSpeed's to mend
    # It compiles for a minute, and training does not use it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False, dist_init_required=False)
    return deepspeed


_DEPRECATED = r"`torch\.distributed\.(all_gather_into_tensor|reduce_scatter_tensor)` is deprecated"


def settings(
    engine: DeepSpeedEngine, options: TrainerOptions, device: torch.device, world: int, passes: int, trained: int
) -> dict[str, Any]:
    """Every setting that matters, written out: DeepSpeed's defaults are for training a whole model.

    Args:
        engine: with its own options.
        options: of the run.
        device: that computes.
        world: how many ranks there are.
        passes: how many passes through the encoder a batch takes.
        trained: how many numbers are trained.
    """
    bucket = engine.bucket or min(max(trained, 1 << 16), 1 << 26)
    bucket += bucket % 2  # stages 1 and 2 want it even
    offload = {"device": "cpu", "pin_memory": device.type == "cuda"}
    micro = options.batch_size // world
    accumulate = options.accumulate * passes
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulate,
        "train_batch_size": micro * accumulate * world,
        "gradient_clipping": 0.0 if options.clip is None or engine.stage == 0 else options.clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "zero_optimization": {
            "stage": engine.stage,
            "contiguous_gradients": True,
            "overlap_comm": False,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_param_persistence_threshold": 10_000,
            "stage3_max_live_parameters": 1 << 28,
            "stage3_max_reuse_distance": 1 << 28,
            "sub_group_size": 1 << 30,
            **({"offload_optimizer": offload} if engine.offload_optimizer else {}),
            **({"offload_param": offload} if engine.offload_parameters else {}),
        },
    }


class Part(nn.Module):
    """What DeepSpeed wraps: everything that uses a parameter happens in its forward."""

    def __init__(self, objective: Objective, device: torch.device, precision: Precision) -> None:
        super().__init__()
        self.objective, self.device, self.precision = objective, device, precision

    def forward(self, batch: Batch | Tensor, share: float = 1.0, balancer: Balancer | None = None) -> Any:
        """Pictures to logits, or a batch to the loss that is minimised and its parts."""
        with autocast(self.device, self.precision):
            if isinstance(batch, Tensor):
                return self.objective.model(batch)
            terms, parts = self.objective.terms(batch, share)
            assert balancer is not None
            return balanced(terms, self.objective, balancer), parts


def image_size_of(model: MultiTaskModel) -> tuple[int, int]:
    """(height, width) that a model was built for. Raises ConfigError where it was put together by hand."""
    if model.origin is None:
        raise ConfigError("engine=deepspeed wants a model that mt_core.build made: it asks which parameters are live")
    return model.origin.spec.image_size
