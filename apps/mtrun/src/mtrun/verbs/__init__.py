"""The commands of mtrun. Names only: a command's module is imported when it runs."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        summary: for the help, one line.
        target: function that runs it, as "module:name". With a config class it takes the config object and the same
            as plain values; without one, the words of the command line. It returns a `Result`.
        config: its config class in `mtrun.config`, or MODULE:CLASS, where Hydra composes one.
        usage: its words, where it reads them itself.
        options: the class of its options, as MODULE:CLASS, where it reads them itself.
        resumes: whether its defaults are those of the run that `checkpoint` names.
        ranks: whether several processes can run it together.
        examples: command lines.
        actions: what the word after the command chooses from; each is a command of its own, and this one runs nothing.
        bare: the option that a first word without `=` sets.
    """

    summary: str
    target: str = ""
    config: str = ""
    usage: str = ""
    options: str = ""
    resumes: bool = False
    ranks: bool = False
    examples: tuple[str, ...] = ()
    actions: Mapping[str, Verb] = field(default_factory=dict)
    bare: str = ""

    def load(self) -> Callable[..., Any]:
        """The function."""
        found: Callable[..., Any] = pkgutil.resolve_name(self.target)
        return found

    def schema(self) -> type[Any]:
        """The class of its configuration, or of the options that it reads itself."""
        name = self.config or self.options
        found: type[Any] = pkgutil.resolve_name(name if ":" in name else f"mtrun.config:{name}")
        return found


VERBS = {
    "train": Verb(
        "train an adapter and its decoders (the default)",
        "mtrun.verbs.train:train",
        "TrainConfig",
        ranks=True,
        examples=(
            "mtrun adapter=mtlora adapter.rank=16 backbone=swin_tiny dataset=nyud dataset.root=DIR",
            "mtrun experiment=demo",
            "mtrun --multirun adapter.rank=16,32 dataset=rooms",
            "mtrun resume=RUN trainer.max_steps=20000",
            "mtrun engine=deepspeed engine.stage=2 launch.ranks=8 dataset=pascal dataset.root=DIR",
            "mtrun dry_run=true dataset=pascal dataset.root=DIR",
        ),
    ),
    "eval": Verb(
        "evaluate a trained model",
        "mtrun.verbs.evaluate:evaluate",
        "EvalConfig",
        resumes=True,
        ranks=True,
        examples=("mtrun eval checkpoint=RUN", "mtrun eval checkpoint=RUN dataset.root=DIR --json"),
    ),
    "predict": Verb(
        "predict every task for your pictures",
        "mtrun.verbs.predict:predict",
        "PredictConfig",
        resumes=True,
        examples=("mtrun predict input=DIR_OR_FILE checkpoint=RUN output=DIR tasks=[depth]",),
    ),
    "export": Verb(
        "write a trained model as an artefact, merged weights, torch.export or ONNX, and check it",
        "mtrun.verbs.export:export",
        "ExportConfig",
        resumes=True,
        examples=(
            "mtrun export checkpoint=RUN format=onnx output=DIR",
            "mtrun export checkpoint=RUN format=merged tasks=[depth]",
        ),
    ),
    "plan": Verb(
        "let an adapter that plans (TGLoRA) look at the data, and show what it found; train does the same by itself",
        "mtrun.verbs.plan:plan",
        "PlanConfig",
        examples=(
            "mtrun plan adapter=tglora backbone=swin_tiny dataset=pascal dataset.root=DIR --show",
            "mtrun plan --show plan.file=RUN",
        ),
    ),
    "params": Verb(
        "count parameters and operations of what `train` would train; needs no data",
        "mtrun.verbs.params:params",
        "TrainConfig",
        examples=("mtrun params adapter=mtlora adapter.rank=64 dataset=pascal tasks=[semseg,human_parts] --json",),
    ),
    "compare": Verb(
        "lay runs beside each other, and beside what papers published: tables, and a report in HTML",
        "mtrun.verbs.compare:compare",
        usage="mtrun compare RUN ... [--paper PAPER:TABLE] [baseline=RUN] [output=DIR] [--json]",
        options="mtrun.data_config:CompareOptions",
        examples=(
            "mtrun compare runs/a runs/b runs/c baseline=runs/single-semseg,runs/single-depth output=report",
            "mtrun compare RUN --paper mtlora:table1 baseline=mtlora:table1",
            "mtrun compare --paper tglora:table2",
        ),
    ),
    "data": Verb(
        "verify a data set, prepare one from archives, or show its pictures and labels",
        examples=("mtrun data verify nyud dataset.root=DIR",),
        actions={
            "verify": Verb(
                "read every file of a data set, list all that is wrong, and write a report; ends with 0 or 3",
                "mtrun.verbs.data_verify:verify",
                "mtrun.data_config:VerifyConfig",
                examples=(
                    "mtrun data verify nyud dataset.root=DIR",
                    "mtrun data verify pascal dataset.root=DIR tasks=[semseg,human_parts] splits=[val] --json",
                ),
                bare="dataset",
            ),
            "prepare": Verb(
                "say where a data set can be had and under which terms, and unpack archives that you have",
                "mtrun.verbs.data_prepare:prepare",
                "mtrun.data_config:PrepareConfig",
                examples=(
                    "mtrun data prepare nyud",
                    "mtrun data prepare nyud archives=[NYUD_MT.tgz] dataset.root=DIR",
                ),
                bare="dataset",
            ),
            "show": Verb(
                "draw pictures with their labels into a PNG, and what augmentation makes of them",
                "mtrun.verbs.data_show:show",
                "mtrun.data_config:ShowConfig",
                examples=("mtrun data show nyud dataset.root=DIR augment=true count=6 split=val",),
                bare="dataset",
            ),
        },
    ),
    "plugins": Verb(
        "list what is installed, or show the options of one",
        "mtrun.verbs.plugins:plugins",
        examples=("mtrun plugins list", "mtrun plugins show mtlora", "mtrun plugins show decoder hrnet"),
    ),
    "doctor": Verb(
        "versions, devices, engines and plugins, and whether a training step works here",
        "mtrun.verbs.doctor:doctor",
        examples=("mtrun doctor", "mtrun doctor --json"),
    ),
}
