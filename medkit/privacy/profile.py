"""What a de-identification keeps beyond the basic profile, and which regions of pictures it blackens."""

from __future__ import annotations

from dataclasses import dataclass

from medkit.privacy.table import VERSION

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mask:
    """A region that a device burns text into.

    Attributes:
        boxes: (left, top, right, bottom) in pixels of a picture of ``rows`` by ``columns``; right and bottom
            are the first pixel outside.
        manufacturer, model, station: As in the header, "" for any.
    """

    rows: int
    columns: int
    boxes: tuple[Box, ...]
    manufacturer: str = ""
    model: str = ""
    station: str = ""


@dataclass(frozen=True)
class Profile:
    """A confidentiality profile: the basic one of PS3.15 with options of CID 7050.

    Attributes:
        dates: "remove", or "shift" by the patient's days (113107).
        patient: Whether sex, age (90 and over as 90), size and weight stay (113108).
        descriptions: "remove", or "clean" of values known from the header and of what the rules find (113105).
        masks: Regions to blacken, for devices that burn text in.
        version: Of the table.
    """

    name: str
    dates: str = "remove"
    patient: bool = False
    descriptions: str = "remove"
    masks: tuple[Mask, ...] = ()
    version: str = VERSION


BASIC = Profile("basic")
RESEARCH = Profile("research", dates="shift", patient=True, descriptions="clean")
PROFILES = {profile.name: profile for profile in (BASIC, RESEARCH)}
