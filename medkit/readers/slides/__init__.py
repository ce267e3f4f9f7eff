"""Whole-slide images: from a folder of slides to tiles of tissue at chosen magnifications.

``files`` says which files are one slide, ``work`` is all that touches OpenSlide and runs in a process of its own,
``tissue`` finds the tissue, ``grid`` chooses tiles, ``reader`` makes records of them. The label and macro images that
a slide file carries are photographs of its label: no function here opens them.
"""
