"""What is trained, and for how long: the same for every method but the adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SIZE = (48, 64)  # (height, width) of the pictures
TASKS = ("semseg", "depth", "normals")
BATCH = 8
WORLD, PRETRAINING_WORLD = 0, 1  # dataset.seed: no picture of one is in the other


@dataclass(frozen=True)
class Method:
    """A row of the leaderboard.

    Attributes:
        words: the command line that makes it what it is.
        single: whether each task has a model of its own.
        whole: whether the backbone is trained whole, at another learning rate.
    """

    label: str
    words: tuple[str, ...]
    single: bool = False
    whole: bool = False


# Ranks are about the papers' share of a width of 96, at a width of 32. All else that is no default is said on the page.
METHODS: Mapping[str, Method] = {
    "single": Method("Full fine-tuning", ("adapter=full",), single=True, whole=True),
    "full": Method("Full fine-tuning, all tasks", ("adapter=full",), whole=True),
    "frozen": Method("Decoders only", ("adapter=frozen",)),
    "lora": Method("LoRA, shared", ("adapter=lora", "adapter.rank=16")),
    "lora_per_task": Method("LoRA, per task", ("adapter=lora_per_task", "adapter.rank=8")),
    "mtlora": Method("MTLoRA", ("adapter=mtlora", "adapter.rank=16")),
    "mtlora_plus": Method("MTLoRA+", ("adapter=mtlora_plus", "adapter.rank=8")),
    "tglora": Method("TGLoRA", ("adapter=tglora", "adapter.rank=16", "plan.examples=16")),
    "tora": Method("ToRA", ("adapter=tora", "adapter.ranks=[16,16,4]", "adapter.init_scale=0.3")),
    "vmt": Method("VMT-Adapter", ("adapter=vmt",)),
    "vmt_lite": Method("VMT-Adapter-Lite", ("adapter=vmt_lite", "adapter.kronecker=4")),
}


@dataclass(frozen=True)
class Run:
    """A run to be made: its folder, and its command line without it."""

    folder: Path
    words: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """The budget.

    Attributes:
        steps: of every run.
        seeds: how many, from 0: of the new weights and of the order of the pictures.
        train, val: pictures of each split; the pretraining has as many of its own to train on.
        pretraining_steps: of the backbone.
        lr: of every run but those that train the backbone whole.
        lr_whole: of those, which were not stable at `lr`: the error of depth differed several-fold between seeds.
        methods: keys of METHODS.
    """

    steps: int = 300
    seeds: int = 3
    train: int = 256
    val: int = 64
    pretraining_steps: int = 400
    lr: float = 2e-3
    lr_whole: float = 5e-4
    methods: tuple[str, ...] = tuple(METHODS)

    def runs(self, folder: Path) -> Iterator[tuple[str, Run]]:
        """Every run with the key of its method, seed by seed, so that whatever is done first is of all methods."""
        for seed in range(self.seeds):
            for key in self.methods:
                method = METHODS[key]
                rate = self.lr_whole if method.whole else self.lr
                for tasks in [[task] for task in TASKS] if method.single else [list(TASKS)]:
                    name = f"{key}-{tasks[0]}-seed{seed}" if method.single else f"{key}-seed{seed}"
                    words = (
                        *method.words,
                        *self._common(folder),
                        f"trainer.lr={rate}",
                        f"tasks=[{','.join(tasks)}]",
                        f"seed={seed}",
                    )
                    yield key, Run(folder / name, words)

    def _common(self, folder: Path) -> tuple[str, ...]:
        size = f"[{SIZE[0]},{SIZE[1]}]"
        return (
            "backbone=swin_nano",
            "backbone.features=before_merging",  # the finest level at 1/4 instead of 1/8
            f"backbone.checkpoint={backbone_file(folder)}",
            "decoder=hrnet",
            "decoder.expansion=1",
            "dataset=rooms",
            f"dataset.seed={WORLD}",
            f"dataset.size={size}",
            f"dataset.train={self.train}",
            f"dataset.val={self.val}",
            f"image_size={size}",
            f"trainer.max_steps={self.steps}",
            f"trainer.batch_size={BATCH}",
            "trainer.device=cpu",
            "trainer.workers=0",
            "trainer.eval_before=false",
            f"trainer.eval_every={self.steps}",  # once, at the end: no step is chosen by its score
            f"trainer.save_every={min(self.steps, 100)}",
            "trainer.panels=0",
        )


def backbone_file(folder: Path) -> Path:
    """The pretrained backbone."""
    return folder / "backbone.safetensors"
