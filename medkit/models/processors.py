"""Loads processors, also of families that read video, in an environment without torchvision.

medkit reads pictures, and Pillow's image processors do that alone. Families with a video processor refuse to
load without torchvision, which a fresh installation lacks and which must match torch's build exactly. Without
it no video can be read anyway, so processors are made of their other parts; with it nothing is changed.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_torchvision_available

VIDEO = "video_processor"
CONFIG, VIDEO_CONFIG = "processor_config.json", "video_preprocessor_config.json"


def load_processor(name: str) -> Any:
    """Loads the processor of a model folder or hub id.

    Raises:
        ImportError: The family's processor needs a package that is not installed.
        OSError: There is no processor.
    """
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(name)
    leave_video_out()
    processor = AutoProcessor.from_pretrained(name)
    if settings := _video_settings(name):
        processor.video_settings = settings
    return processor


def save_processor(processor: Any, folder: Path) -> None:
    """Writes a processor, with the video settings that it came with although they could not be used here."""
    processor.save_pretrained(folder)
    settings = getattr(processor, "video_settings", None)
    if settings and (folder / CONFIG).is_file():
        config = json.loads((folder / CONFIG).read_text())
        config.setdefault(VIDEO, settings)
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def leave_video_out() -> None:
    """Makes processors of this process do without their video part; nothing where torchvision is installed."""
    if is_torchvision_available() or getattr(ProcessorMixin, "_without_video", False):
        return
    every = ProcessorMixin.get_attributes.__func__  # type: ignore[attr-defined]
    without = classmethod(lambda cls: [part for part in every(cls) if part != VIDEO])
    ProcessorMixin.get_attributes = without  # type: ignore[assignment]
    # SmolVLM's template asks for the pace of videos even when there is none, and its class for num2words,
    # which words the number of frames
    ProcessorMixin.video_processor = SimpleNamespace(num_frames=0, fps=0)  # type: ignore[attr-defined]
    smolvlm: Any = importlib.import_module("transformers.models.smolvlm.processing_smolvlm")
    smolvlm.num2words = smolvlm.num2words or str
    made = smolvlm.SmolVLMProcessor.__init__
    made.__defaults__ = (None, *made.__defaults__)  # the one processor that insists on its video part
    ProcessorMixin._without_video = True  # type: ignore[attr-defined]


def _video_settings(name: str) -> dict[str, Any]:
    quiet = {
        f"_raise_exceptions_for_{what}": False
        for what in ("gated_repo", "missing_entries", "connection_errors")
    }
    for file in (CONFIG, VIDEO_CONFIG):
        path = cached_file(name, file, **quiet)
        if path is None:
            continue
        settings = json.loads(Path(path).read_text())
        settings = settings.get(VIDEO) if file == CONFIG else settings
        if settings:
            return settings
    return {}
