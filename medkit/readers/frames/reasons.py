"""Every reason for which a video or stack of pictures gives nothing, and the exception that carries one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from medkit.readers import worker
from medkit.readers.refusal import Refusal, within_one_file

REASONS = {
    "not a video": "The file's name doesn't end as a video's or a stack's does, or its content is something else.",
    "decoder not installed": "Videos need the extra 'video'; TIFF stacks and animations don't.",
    "file too large": "The file is larger than the limit.",
    "too long": "The video is longer, or the stack has more pages, than the limit.",
    "too many pixels": "A frame has more pixels than the limit.",
    "no duration": "The file has no frame whose time is known.",
    "video unreadable": "The file is damaged: it can't be opened, or a frame can't be decoded.",
    **worker.REASONS,
    "unforeseen fault": "Something in the file that medkit didn't foresee; the detail names the kind of error.",
    "video missing": "A row of the table names a file that isn't there.",
    "row unreadable": "A row of the table makes no sense.",
    "repeated row": "The table has an earlier row for the same file.",
}


class Refused(Refusal):
    """A file that gives no frames."""

    reasons = REASONS


def one_file() -> AbstractContextManager[None]:
    """Keeps whatever a hostile file raises within that file, as a ``Refused``."""
    return within_one_file(Refused, Refused("too many pixels", "more memory than the limit"))
