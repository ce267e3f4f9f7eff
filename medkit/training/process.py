"""One of the processes that train a stage together; ``launch.py`` starts them."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from ..errors import MedkitError
from .launch import FAULT, RESULT
from .train import train


def main(path: Path) -> int:
    """Runs a job in one of the processes; gives the exit status."""
    job = json.loads(path.read_text())
    out, first = Path(job["out"]), os.environ["RANK"] == "0"
    threading.Thread(target=_end_with, args=(job["parent"],), daemon=True).start()
    inputs = {role: Path(given) for role, given in job["inputs"].items()}
    try:
        result = train(job["settings"], inputs, out)
    except MedkitError as error:
        if first:
            (out / FAULT).write_text(str(error))
        return 1
    if first:
        partial = out / f"{RESULT}.partial"
        partial.write_text(json.dumps(result))
        partial.replace(out / RESULT)
    return 0


def _end_with(parent: int) -> None:
    """Ends this process when the run that started it is gone: nobody would wait for its result."""
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
