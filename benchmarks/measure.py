"""Times and memory of variants of one training step, in one run, so that only ratios need to be believed."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

Step = Callable[[], None]


def main(script: str, about: str, variants: Mapping[str, Callable[[], Step]], reference: str, check: Step) -> None:
    """The command line of a benchmark: `check` that the variants agree, then print the table."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", choices=variants, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        report_memory(variants[arguments.memory])
        return
    check()
    seconds = interleaved({name: build() for name, build in variants.items()}, arguments.rounds)
    print(table(seconds, peak_memory(script, list(variants)), reference))


def interleaved(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each step, taken in turn (A B C A B C ...), after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in times.items()}


def peak_memory(script: str, variants: list[str]) -> dict[str, float]:
    """Peak resident MiB that two steps of each variant add, each in a process of its own (`script --memory NAME`)."""
    found = {}
    for name in variants:
        output = subprocess.run([sys.executable, script, "--memory", name], capture_output=True, text=True, check=True)
        found[name] = float(output.stdout.strip().splitlines()[-1])
    return found


def report_memory(build: Callable[[], Step]) -> None:
    """In the child process: print how much the peak rises above the built model while two steps run."""
    step = build()
    before = kernel_says("VmRSS")
    step()
    step()
    print(kernel_says("VmHWM") - before)


def kernel_says(field: str) -> float:
    """Memory of this process, MiB: VmRSS now, VmHWM at its highest (`ru_maxrss` would be inherited)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def table(seconds: Mapping[str, float], memory: Mapping[str, float], reference: str) -> str:
    """A Markdown table: seconds, MiB, and both over the row called `reference`."""
    lines = ["| variant | s / step | over | MiB | over |", "|---|---|---|---|---|"]
    for name, value in seconds.items():
        mib = memory[name]
        over, more = value / seconds[reference], mib / memory[reference]
        lines.append(f"| {name} | {value:.3f} | {over:.2f} | {mib:.0f} | {more:.2f} |")
    return "\n".join(lines)
