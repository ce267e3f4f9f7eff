"""Frames of videos, and pages of multi-page TIFF files and animations.

``work`` decodes in a process of its own, ``reader`` makes records.
"""
