"""Every reason for which a NIfTI file gives no pictures, and the exception that carries one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from medkit.readers.refusal import Refusal, within_one_file

REASONS = {
    "not NIfTI": "The file's name doesn't end in .nii or .nii.gz, or its header isn't one.",
    "pair of files": "A header whose values lie in another file (.hdr and .img); convert it to .nii.",
    "file unreadable": "The file can't be opened.",
    "file too large": "The file is larger than the limit.",
    "inflates too far": "Header and values of a .nii.gz lie beyond the limit.",
    "header unreadable": "A number in the header makes no sense.",
    "too many values": "The header asks for more values than the limit.",
    "truncated values": "There are fewer values than the header says, or the gzip stream is damaged.",
    "not grey": "The values are colours, complex numbers or no numbers at all.",
    "not a volume": "There are fewer than two slices, rows or columns, or more than four dimensions.",
    "no orientation": "The header says neither by sform nor by qform where left and right are.",
    "two orientations": "sform and qform name different directions.",
    "damaged orientation": "The matrix is no even grid: singular, sheared, or with a spacing beyond 0.01 to 100 mm.",
    "values are not Hounsfield units": "The profile's windows need HU; no value lies below 0, or the card says no CT.",
    "one value": "All values are equal or none is finite; there is nothing to see.",
    "mask doesn't fit": "The mask's size or place isn't the volume's, or its values are no labels.",
    "report unreadable": "The report is too long, empty or no text.",
    "report without images": "No record's fields give the report's file name.",
    "unforeseen fault": "Something in the file that medkit didn't foresee; the detail names the kind of error.",
}


class Refused(Refusal):
    """A file that gives no pictures."""

    reasons = REASONS


def one_file() -> AbstractContextManager[None]:
    """Keeps whatever a hostile file raises within that file, as a ``Refused``."""
    return within_one_file(Refused, Refused("too many values", "more memory than there is"))
