"""The ways in which medical pictures were rendered, from a dataset's samples to the contract of a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..readers.dicom.profiles import settings_of, shipped

ANY = "*"


def renders_of(sources: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Gives the ways in which samples were rendered, for a contract.

    Args:
        sources: (source, facts) of the samples; those that no profile rendered add nothing.

    Returns:
        One row a modality and way: ``modality`` ("*" where the header has none), ``samples``, ``profile`` with its
        version, the profile's own settings and ``transforms``, what was done to the volumes before, if anything; by
        modality, then the most frequent first.
    """
    counts: Counter[tuple[str, str]] = Counter()
    settings: dict[str, dict[str, Any]] = {}
    for source, facts in sources:
        name = source.get("render")
        if not name:
            continue
        own = source.get("render_settings")
        # The same profile may have shown volumes as they were and transformed ones.
        way = f"{name} {json.dumps(own, sort_keys=True)}"
        counts[str(facts.get("modality") or ANY), way] += 1
        if way not in settings:
            settings[way] = _settings(name, own)
    rows = [
        {"modality": modality, "samples": count, **settings[way]} for (modality, way), count in counts.items()
    ]
    return sorted(rows, key=lambda row: (row["modality"], -row["samples"], row["profile"]))


def merge_renders(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives a contract's list after another stage: what the stage saw of a modality replaces what was known of it."""
    seen = {row["modality"] for row in after}
    return sorted(
        [*(row for row in before if row["modality"] not in seen), *after], key=lambda row: row["modality"]
    )


def differences(trained: Sequence[dict[str, Any]], used: Sequence[dict[str, Any]]) -> list[str]:
    """Says which modalities are rendered otherwise than in training, [] where all agree or none is known."""
    known: dict[str, list[dict[str, Any]]] = {}
    for row in trained:
        known.setdefault(row["modality"], []).append(_plain(row))
    found = []
    for row in used:
        there = known.get(row["modality"])
        if there is not None and _plain(row) not in there:
            names = ", ".join(one["profile"] for one in there)
            found.append(f"{row['modality']}: rendered with {row['profile']}, trained with {names}")
    return found


def _settings(name: str, own: Any) -> dict[str, Any]:
    """Gives the settings of a profile that a sample names; of an unknown version only the name is left."""
    if isinstance(own, dict):
        return {"profile": name, **own}
    known = shipped().get(name.rpartition("@")[0])
    return settings_of(known) if known is not None and known.name == name else {"profile": name}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("modality", "samples")}
