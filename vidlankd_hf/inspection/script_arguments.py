"""Command-line arguments of the script that inspects data."""

from dataclasses import dataclass, field

from ..data.script_arguments import CaptionedVideoArguments


@dataclass
class InspectionArguments(CaptionedVideoArguments):
    """What is looked at."""

    tokenizer: str | None = field(
        default=None, metadata={"help": "the teacher's tokenizer, Hub id or folder; default: the world's"}
    )
    videos: str | None = field(
        default=None, metadata={"help": "folder of the video files, for the contact sheet; default: the world's"}
    )
    text: str | None = field(
        default=None, metadata={"help": "corpus whose vocabulary to compare with; default: the world's"}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "tokens per window; default: 128, for the world 32"}
    )
    num_clips: int = field(default=16, metadata={"help": "clips on the contact sheet"})
    seed: int = field(default=0, metadata={"help": "seed of the choice of clips"})
    output_dir: str = field(default="outputs/look", metadata={"help": "new folder for pictures and tables"})
