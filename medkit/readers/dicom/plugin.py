"""imagecodecs as a decoder of pydicom (its decoder plug-in interface).

Only named codecs are called, never a guess of the format. Components come back as they are stored: pydicom
does signs and widths, medkit the colours.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

NAME = "medkit-imagecodecs"
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
SYNTAXES = (*JPEG, *JPEG_LS, *JPEG_2000, *HTJ2K)
DECODER_DEPENDENCIES = {syntax: ("imagecodecs>=2025.3",) for syntax in SYNTAXES}


def is_available(syntax: str) -> bool:
    """Whether the packages for a transfer syntax are installed; pydicom asks."""
    return syntax in SYNTAXES and importlib.util.find_spec("imagecodecs") is not None


def register() -> None:
    """Makes imagecodecs known to pydicom for its syntaxes; harmless when done twice."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, "decode_frame"))


def decode_frame(data: bytes, runner: DecodeRunner) -> bytes:
    """Decodes one frame; pydicom calls it."""
    import imagecodecs

    syntax = runner.transfer_syntax
    if syntax in JPEG_2000:
        pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
    elif syntax in HTJ2K:
        pixels = imagecodecs.htj2k_decode(data)
    elif syntax in JPEG_LS:
        pixels = imagecodecs.jpegls_decode(data)
    elif runner.samples_per_pixel == 3:
        # The same space in and out: no colour transform, whatever the stream's markers suggest.
        pixels = imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")
    else:
        pixels = imagecodecs.jpeg8_decode(data)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", pixels.dtype.itemsize * 8)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    return pixels.tobytes()
