"""Pseudonyms from a secret key: the same everywhere and at any time, with no table to keep or to leak.

Whoever holds the key can find a known patient again; nobody else can, and no two sites share names.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from collections.abc import Callable
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

from medkit.errors import DataError

LEAST_KEY_BYTES = 32
MOST_DAYS = 3650
PREFIX = "MK-"
UID_ROOT = "2.25."
PSEUDONYM = re.compile(r"MK-[A-Z2-7]{16}")


class Pseudonyms:
    """Pseudonyms of one key.

    Args:
        key: At least 32 secret bytes; another key gives unrelated pseudonyms.

    Raises:
        DataError: The key is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < LEAST_KEY_BYTES:
            raise DataError(
                f"the privacy key has {len(key)} bytes; it needs at least {LEAST_KEY_BYTES} random ones"
            )
        self._key = bytes(key)

    def name(self, patient: str) -> str:
        """Gives a patient's pseudonym: "MK-" and 16 letters and digits (80 bits)."""
        return PREFIX + b32encode(self._digest("patient", _plain(patient))[:10]).decode("ascii")

    def uid(self, uid: str) -> str:
        """Gives a UID's pseudonym under the root 2.25 (PS3.5 B.2), at most 44 characters."""
        return UID_ROOT + str(int.from_bytes(self._digest("uid", uid.strip().strip("\0"))[:16], "big"))

    def days(self, patient: str) -> int:
        """Gives by how many days a patient's dates are moved back: 1 to 3650, the same for all of them."""
        return 1 + int.from_bytes(self._digest("days", _plain(patient))[:8], "big") % MOST_DAYS

    def _digest(self, use: str, value: str) -> bytes:
        return hmac.new(self._key, f"{use}\0{value}".encode(), sha256).digest()


def read_key(path: Path) -> bytes:
    """Reads a key file.

    Raises:
        DataError: It can't be read or is too short; says how to make one.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise DataError(
            f"the key file {path} can't be read ({error.strerror}); make one with: openssl rand -hex 32 > {path.name}"
        ) from None
    if len(key) < LEAST_KEY_BYTES:
        raise DataError(f"the key file {path} holds {len(key)} bytes; it needs at least {LEAST_KEY_BYTES}")
    return key


def shifted(value: str, days: int) -> str | None:
    """Moves a DA or DT value back by whole days; its time of day and precision stay.

    Returns:
        None where the value holds no full date.
    """
    match = re.fullmatch(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})(.*)", value.strip(), re.DOTALL)
    if match is None or not re.fullmatch(r"[\d.+\-: ]*", match[4]):
        return None
    moved = _moved(date, (int(match[1]), int(match[2]), int(match[3])), days)
    return None if moved is None else moved.strftime("%Y%m%d").rjust(8, "0") + match[4].rstrip()


def _moved(make: Callable[..., date], parts: tuple[int, int, int], days: int) -> date | None:
    try:
        return make(*parts) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def _plain(patient: str) -> str:
    # One patient: padding, case and separators differ between devices of one hospital.
    return re.sub(r"[\s^=,]+", " ", patient.strip().strip("\0")).strip().upper()
