"""Privacy: what of a DICOM object, a report or a folder identifies a person, and the same without it.

Nothing in here writes a value that may identify someone into a message, a log or a report: they name
attributes and reasons, and count.
"""
