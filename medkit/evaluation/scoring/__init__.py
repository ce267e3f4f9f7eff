"""Published definitions of scores, each as pure functions over stored answers, and named profiles of them.

A file of this package holds one reference's behaviour, its faults included: what it counts as right is what
a published number means. ``profiles`` says which of them belong together.
"""
