"""Command-line arguments of the script that inspects data."""

import math
import shlex
from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..data.script_arguments import CaptionedVideoArguments
from ..utils.examples import flags

# Options of reading captions that the teacher must get too.
READING = ("caption_format", "caption_encoding", "caption_columns", "remove_overlap", "streams", "max_length")


@dataclass
class InspectionArguments(CaptionedVideoArguments):
    """What to inspect."""

    tokenizer: str | None = HfArg(default=None, help="the teacher's tokenizer, Hub id or folder; default: the world's")
    videos: str | None = HfArg(
        default=None, help="folder of the video files, for the contact sheet; default: the world's"
    )
    text: str | None = HfArg(default=None, help="text corpus to compare the vocabulary with; default: the world's")
    teacher: str | None = HfArg(
        default=None,
        help="trained teacher, to measure whether captions come early or late; default: none",
    )
    streams: list[str] | None = HfArg(default=None, help="feature streams that the teacher sees; default: all")
    max_length: int | None = HfArg(default=None, help="tokens per window; default: 128, for the world 32")
    num_clips: int = HfArg(default=16, help="clips on the contact sheet")
    seed: int = HfArg(default=0, help="seed for choosing the clips")
    output_dir: str = HfArg(default="outputs/look", help="new folder for pictures and tables")


def teacher_options(args: InspectionArguments, given: dict, unpaired: float) -> str:
    """Returns the options of `vidlankd teacher` for the data that were inspected.

    Args:
        args: Arguments of the inspection.
        given: Those of them that the user gave.
        unpaired: The share of the data that the teacher must leave out.
    """
    if "features" not in given:
        return shlex.join(flags({"world": args.world}))
    settings = {name: getattr(args, name) for name in ("features", "captions", "tokenizer")}
    settings |= {name: given[name] for name in READING if name in given}
    settings |= {"max_unpaired": math.ceil(1000 * unpaired) / 1000} if unpaired else {}
    return shlex.join(flags(settings))
