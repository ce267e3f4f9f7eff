"""DICOM: files become pictures a radiologist would recognise, with nothing that names a patient.

``reader.read`` is the door. Behind it, in the order of the flow: ``files`` parses a header within limits,
``facts`` copies an allow-list of attributes, ``burned_in`` says which pixels may leave, ``decode`` gives
stored values (compressed ones in a ``worker`` process), ``tone``, ``colour`` and ``render`` make the picture
that a profile of ``profiles`` describes, and ``series`` puts slices in order. ``reasons`` lists every refusal.
"""
