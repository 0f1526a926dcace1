"""Command-line arguments of the script that inspects data."""

from dataclasses import dataclass

from ..data.script_arguments import CaptionedVideoArguments
from ..utils.options import option


@dataclass
class InspectionArguments(CaptionedVideoArguments):
    """What to inspect."""

    tokenizer: str | None = option(None, "the teacher's tokenizer, Hub id or folder; default: the world's")
    videos: str | None = option(None, "folder of the video files, for the contact sheet; default: the world's")
    text: str | None = option(None, "corpus whose vocabulary to compare with; default: the world's")
    max_length: int | None = option(None, "tokens per window; default: 128, for the world 32")
    num_clips: int = option(16, "clips on the contact sheet")
    seed: int = option(0, "seed of the choice of clips")
    output_dir: str = option("outputs/look", "new folder for pictures and tables")
