"""Trains a stage in several processes of this machine, through torchrun, which medkit starts itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import TrainingError

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
JOB, RESULT, FAULT = "job.json", "job-result.json", "job-fault.txt"


def launch(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Runs the train step in ``hardware.processes`` processes.

    Args:
        settings: As ``medkit.training.train.train`` takes them.
        inputs: The same.
        out: Stage folder.

    Returns:
        What the first process's train step returned.

    Raises:
        TrainingError: A process failed; the message is the step's own where it gave one.
    """
    for name in (RESULT, FAULT):
        (out / name).unlink(missing_ok=True)
    paths = {role: str(path) for role, path in inputs.items()}
    job = {"settings": settings, "inputs": paths, "out": str(out), "parent": os.getpid()}
    (out / JOB).write_text(json.dumps(job))
    processes = settings["hardware"]["processes"]
    done = subprocess.run(
        [*TORCHRUN, "--nproc_per_node", str(processes), "-m", "medkit.training.process", str(out / JOB)],
        env=_environment(processes),
    )
    # the result counts, not the exit status: gloo sometimes fails while it is taken down, when all is done
    if not (out / RESULT).exists():
        fault = (out / FAULT).read_text() if (out / FAULT).exists() else ""
        told = f"one of {processes} training processes failed (status {done.returncode}); its error is above"
        raise TrainingError(fault or told)
    result = json.loads((out / RESULT).read_text())
    for name in (JOB, RESULT):
        (out / name).unlink()
    return result


def _environment(processes: int) -> dict[str, str]:
    """Shares the cores out, and lets the processes import the medkit that runs here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    package = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # not a line a process a stage
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // processes))),
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
