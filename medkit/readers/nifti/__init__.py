"""NIfTI volumes: headers within limits, orientation, slices as a radiologist sees them. See docs/volumes.md."""
