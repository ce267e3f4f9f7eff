"""All profiles by name."""

from __future__ import annotations

from medkit.errors import DataError

from .profile import Item, Profile
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


def score_names(profile: str) -> list[str]:
    """Gives the names of a profile's scores, those of sets included.

    The numbers of a set are named by the functions that count them: each is tried on an invented answer.

    Raises:
        DataError: There is no such profile.
    """
    found: list[str] = []
    for one in find_profiles(profile):
        found += [score.name for score in one.scores]
        for entry in one.corpus:
            fitting = [item for item in _INVENTED if entry.applies(item)]
            found += entry.function(fitting) if fitting else []
    return list(dict.fromkeys(found))


_INVENTED = (
    Item("yes", ("yes",), "yes_no", category="existence", image="a"),
    Item("no effusion .", ("no effusion .",), "report"),
    Item("no effusion .", ("no effusion .",), "report", category="iu_xray"),
)
