"""Runs a script of these tests as several ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

THERE = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}


def together(script: str, world: int, *words: str) -> str:
    """Run a script beside this module, once for each rank, and wait; what rank 0 said on both streams."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    inherited = {name: value for name, value in os.environ.items() if name not in THERE}
    command = [sys.executable, str(Path(__file__).with_name(script)), *words]
    processes = []
    for rank in range(world):
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        environment = {"OMP_NUM_THREADS": "1", **inherited, **mine, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        said = [process.communicate(timeout=1500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(said)
    return said[0]
