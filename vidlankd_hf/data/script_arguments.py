"""Command-line arguments of the scripts that read captioned video."""

from dataclasses import dataclass
from typing import Any

from transformers.hf_argparser import HfArg

from .caption_formats import FORMATS
from .video_text import load_video_text


@dataclass
class CaptionedVideoArguments:
    """Paths and format of the features and captions."""

    features: str | None = HfArg(default=None, help="folder written by `vidlankd extract`; default: the world's")
    captions: str | None = HfArg(
        default=None, help="captions file, folder or Hub data set (docs/data.md); default: the world's"
    )
    caption_format: str | None = HfArg(
        default=None, help=f"one of {', '.join(FORMATS)}; default: detected from suffix and content"
    )
    caption_encoding: str | None = HfArg(
        default=None, help="encoding of the captions, such as cp1252; default: UTF-8, or UTF-16 with a byte order mark"
    )
    caption_columns: list[str] | None = HfArg(
        default=None,
        help="columns of a table of captions: video=NAME start=NAME end=NAME text=NAME, NAME:ms for milliseconds; "
        "default: video, start, end and text",
    )
    remove_overlap: bool | None = HfArg(
        default=None,
        help="remove text that rolling captions repeat; default: only for YouTube's automatic captions and HowTo100M",
    )
    world: str = HfArg(default="outputs/world", help="grounded world, used if no other data are given")

    def load(self, tokenizer, max_length: int, **options: Any):
        """Loads the captioned windows; `options` are those of [`load_video_text`]."""
        options |= {"caption_format": self.caption_format, "remove_overlap": self.remove_overlap}
        options |= {"caption_encoding": self.caption_encoding, "caption_columns": self.caption_columns}
        return load_video_text(self.features, self.captions, tokenizer, max_length=max_length, **options)


@dataclass
class PairingArguments(CaptionedVideoArguments):
    """Which captions and feature streams to train on."""

    max_unpaired: float = HfArg(
        default=0.0,
        help="largest share of captions without video, or of videos without captions, that may be left out",
    )
    streams: list[str] | None = HfArg(default=None, help="feature streams the model sees, such as frame; default: all")
