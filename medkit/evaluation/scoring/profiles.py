"""All profiles by name."""

from __future__ import annotations

from medkit.errors import DataError

from .profile import Profile
from .profile_medkit import MEDKIT
from .profiles_references import REFERENCES

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (MEDKIT, *REFERENCES)}


def find_profiles(name: str) -> list[Profile]:
    """Gives the named profile, or all of them for ``all``.

    Raises:
        DataError: There is no such profile.
    """
    if name == "all":
        return list(PROFILES.values())
    if name not in PROFILES:
        raise DataError(f"no profile {name!r}; there are: all, {', '.join(PROFILES)}")
    return [PROFILES[name]]
