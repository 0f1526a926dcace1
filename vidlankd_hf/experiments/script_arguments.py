"""Command-line arguments of the script that vokenizes a corpus."""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..data.script_arguments import PairingArguments


@dataclass
class VokenizationArguments(PairingArguments):
    """Vokenizer, clips and text."""

    vokenizer: str = HfArg(default="outputs/vokenizer", help="trained teacher")
    num_vokens: int | None = HfArg(default=None, help="clips to choose from; default: 50000, or all if fewer")
    output_dir: str = HfArg(default="outputs/vokens", help="new folder, or an unfinished one to continue")
    text: str | None = HfArg(default=None, help="text file, folder or Hub data set (id:config); default: the world's")
    block_tokens: int | None = HfArg(default=None, help="text tokens per block; default: 126, for the world 30")
    max_length: int | None = HfArg(default=None, help="tokens per window; default: 128, for the world 32")
    max_video_length: int = HfArg(default=384, help="video steps per clip")
    streaming: bool = HfArg(default=False, help="read captions from disk, in memory that does not grow with the data")
    cache_dir: str = HfArg(default="outputs/cache", help="folder of tokenized text, and of captions with --streaming")
    seed: int = HfArg(default=0, help="seed for choosing the clips")
    batch_size: int = HfArg(default=64, help="blocks per batch")
