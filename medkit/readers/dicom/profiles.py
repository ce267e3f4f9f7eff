"""Render profiles: versioned data that says which grey values a picture shows.

A model sees pictures of one look; serving must render as training did. A profile is therefore named with its
version (``ct-medgemma-1.5@1``) in every sample, and a change of its numbers is a new version.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medkit.errors import DataError

FILE = Path(__file__).with_name("profiles.json")
DEFAULTS = {"CT": "ct-abdomen", "MR": "mr-percentile", "*": "window"}
KEYS = ("version", "unit", "windows", "percentiles", "equalise", "from_file", "about")


@dataclass(frozen=True)
class Profile:
    """How values become 0..255.

    Attributes:
        name: With its version, as samples carry it.
        unit: "HU" when the windows mean Hounsfield units, else "".
        windows: (least, greatest) value shown, one for grey or three for red, green and blue.
        percentiles: (low, high) over the volume, or over the picture where there is none.
        equalise: Least to greatest value, then an equalised histogram.
    """

    name: str
    unit: str = ""
    windows: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] | None = None
    equalise: bool = False


@cache
def shipped() -> dict[str, Profile]:
    """Gives the profiles that come with medkit, by name without version."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: make_profile(name, row) for name, row in rows.items()}


def make_profile(name: str, row: dict[str, Any]) -> Profile:
    """Makes a profile of a card's or the shipped table's row.

    Raises:
        DataError: A key or value of it makes no sense.
    """
    unknown = sorted(set(row) - set(KEYS))
    if unknown:
        raise DataError(f"render profile {name} has no key {', '.join(unknown)}; its keys: {', '.join(KEYS)}")
    try:
        windows = tuple((float(low), float(high)) for low, high in row.get("windows", ()))
        pair = tuple(float(one) for one in row.get("percentiles", ()))
    except (TypeError, ValueError):
        raise DataError(
            f"render profile {name}: windows and percentiles are pairs of numbers [low, high]"
        ) from None
    if len(windows) not in (0, 1, 3) or any(low >= high for low, high in windows):
        raise DataError(f"render profile {name} needs one or three windows [low, high] with low below high")
    if pair and not (len(pair) == 2 and 0 <= pair[0] < pair[1] <= 100):
        raise DataError(f"render profile {name}: percentiles are [low, high] within 0 to 100")
    ways = [bool(windows), bool(pair), bool(row.get("equalise")), bool(row.get("from_file"))]
    if sum(ways) != 1:
        raise DataError(f"render profile {name} needs one of windows, percentiles, equalise, from_file")
    if row.get("unit", "") not in ("", "HU"):
        raise DataError(f"render profile {name}: unit is HU or left out")
    return Profile(
        f"{name}@{row.get('version', 1)}",
        row.get("unit", ""),
        windows,
        (pair[0], pair[1]) if pair else None,
        bool(row.get("equalise")),
    )


def settings_of(profile: Profile) -> dict[str, Any]:
    """Gives a profile as JSON holds it: ``profile`` (name and version) and the keys that a card would write."""
    settings: dict[str, Any] = {"profile": profile.name}
    if profile.unit:
        settings["unit"] = profile.unit
    if profile.windows:
        settings["windows"] = [list(pair) for pair in profile.windows]
    elif profile.percentiles:
        settings["percentiles"] = list(profile.percentiles)
    else:
        settings["equalise" if profile.equalise else "from_file"] = True
    return settings


def profile_from(settings: dict[str, Any]) -> Profile:
    """Makes the profile that ``settings_of`` wrote down, whatever this medkit's own of that name is.

    Raises:
        DataError: The settings make no sense.
    """
    name, _, version = str(settings.get("profile", "")).rpartition("@")
    if not name or not version.isdigit():
        raise DataError("a render profile needs its name and version, as in ct-lung@1")
    return make_profile(name, {key: settings[key] for key in KEYS if key in settings} | {"version": version})


def carried(profile: Profile, transforms: dict[str, Any] | None = None) -> dict[str, Any]:
    """Gives what a sample's source says of how it was rendered.

    Args:
        profile: The profile; its name is told, and the settings of one that no table has.
        transforms: What was done to the volume before (``volumes.Transforms.settings``); told with the settings.
    """
    told: dict[str, Any] = {"render": profile.name}
    settings = settings_of(profile)
    del settings["profile"]
    if transforms is not None:
        told["render_settings"] = {**settings, "transforms": transforms}
    elif profile not in shipped().values():
        told["render_settings"] = settings
    return told


def choose_profiles(card: Any) -> dict[str, Profile]:
    """Gives the profile of every modality ("*": all others) that a domain card asks for.

    Args:
        card: None (the defaults), a shipped profile's name for everything, or a mapping of modality to a name
            or to a profile's own keys.

    Raises:
        DataError: A name is unknown or a profile makes no sense.
    """
    if card is not None and not isinstance(card, str | dict):
        raise DataError(
            f"profiles {card!r} is neither a render profile's name nor a mapping of modality to one"
        )
    given: dict[str, Any] = {"*": card} if isinstance(card, str) else dict(card or {})
    chosen = given if isinstance(card, str) else {**DEFAULTS, **given}
    return {str(modality).upper(): _profile(str(modality), one) for modality, one in chosen.items()}


def _profile(modality: str, given: Any) -> Profile:
    if isinstance(given, dict):
        return make_profile(f"card-{modality.lower().replace('*', 'any')}", given)
    name = str(given).partition("@")[0]
    if name not in shipped():
        close = difflib.get_close_matches(name, shipped(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DataError(f"there is no render profile {name!r}{hint}; profiles: {', '.join(shipped())}")
    profile = shipped()[name]
    if "@" in str(given) and str(given) != profile.name:
        raise DataError(f"render profile {given} isn't what this medkit has: {profile.name}")
    return profile
