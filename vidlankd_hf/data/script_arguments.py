"""Command-line arguments of the scripts that read captioned video."""

from dataclasses import dataclass
from typing import Any

from ..utils.options import option
from .caption_formats import READERS
from .video_text import load_video_text


@dataclass
class CaptionedVideoArguments:
    """Paths and format of the features and captions."""

    features: str | None = option(None, "folder written by `vidlankd extract`; default: the world's")
    captions: str | None = option(None, "captions file or folder of subtitles (docs/data.md); default: the world's")
    caption_format: str | None = option(None, f"one of {', '.join(READERS)}; default: found from suffix and content")
    remove_overlap: bool | None = option(
        None, "remove text that rolling captions repeat; default: for YouTube's speech and HowTo100M"
    )
    world: str = option("outputs/world", "grounded world, used if no own data are given")

    def load(self, tokenizer, max_length: int, **options: Any):
        """Loads the captioned windows; `options` are those of [`load_video_text`]."""
        options |= {"caption_format": self.caption_format, "remove_overlap": self.remove_overlap}
        return load_video_text(self.features, self.captions, tokenizer, max_length=max_length, **options)


@dataclass
class PairingArguments(CaptionedVideoArguments):
    """Which captions and feature streams to train on."""

    max_unpaired: float = option(
        0.0, "largest share of captions without video, or of videos without captions, to leave out"
    )
    streams: list[str] | None = option(None, "feature streams the model sees, such as frame; default: all")
