"""The terms that a coded attribute may hold to pass, kept as versioned data beside this file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("vocabulary.json")


@cache
def vocabulary(name: str) -> frozenset[str]:
    """Gives a list of terms: modalities, body_parts, views, patient_positions, image_types, picture_classes."""
    return frozenset(json.loads(FILE.read_text(encoding="utf-8"))[name].split())
