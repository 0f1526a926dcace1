"""Command-line arguments of the script that vokenizes a corpus."""

from dataclasses import dataclass, field

from ..data.script_arguments import PairingArguments


@dataclass
class VokenizationArguments(PairingArguments):
    """Vokenizer, clips and text."""

    vokenizer: str = field(default="outputs/vokenizer", metadata={"help": "trained teacher"})
    num_vokens: int | None = field(
        default=None, metadata={"help": "clips to choose from; default: 50000, or all if there are fewer"}
    )
    output_dir: str = field(
        default="outputs/vokens", metadata={"help": "new folder, or an unfinished one to continue"}
    )
    text: str | None = field(
        default=None, metadata={"help": "text file, folder or Hub data set (id:config); default: the world's"}
    )
    block_tokens: int | None = field(
        default=None, metadata={"help": "text tokens per block; default: 126, for the world 30"}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "tokens per clip's window; default: 128, for the world 32"}
    )
    max_video_length: int = field(default=384, metadata={"help": "video steps per clip"})
    cache_dir: str = field(default="outputs/cache", metadata={"help": "where tokenised text is kept"})
    seed: int = field(default=0, metadata={"help": "seed of the choice of clips"})
    batch_size: int = field(default=64, metadata={"help": "blocks per batch"})
