"""Ray clusters: that of ``RAY_ADDRESS``, else one that is started on this machine.

Every machine of a cluster must see the files under the same paths and have medkit installed, with the same versions.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from medkit.errors import DataError


def find_ray(key: str) -> Any:
    """Gives the package ray, with ``ray.data``.

    Args:
        key: The card's key that asks for it.

    Raises:
        DataError: It isn't installed.
    """
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError:
        raise DataError(
            f"engine ray needs the package ray: pip install 'medkit-lmm[ray]', or take {key}=local"
        ) from None
    return ray


def start_ray(ray: Any, workers: int | None) -> bool:
    """Connects to the cluster, or starts one here; says whether this call did.

    Args:
        ray: See ``find_ray``.
        workers: Processors of a cluster that is started here; None: all of this machine.

    Raises:
        DataError: No cluster can be reached or started.
    """
    if ray.is_initialized():
        return False
    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    # A checkout that isn't installed must be found by Ray's workers too.
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Ray reports its use to its makers by default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
            **({} if os.environ.get("RAY_ADDRESS") else own),
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise DataError(f"no Ray cluster can be reached or started ({error})") from None
    return True
