"""Command-line arguments of the scripts that train a teacher or a student, in addition to those of their trainers."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers.hf_argparser import HfArg

from ..data.script_arguments import PairingArguments
from ..data.text_blocks import read_vokens_info
from ..models.attention import ATTENTIONS
from ..models.configuration import CONTRASTS, MIL_CANDIDATES, MODEL_TYPES, SIZES, TEACHER_LOSSES
from ..models.objectives import objectives_recipe
from ..models.teacher import check_path
from ..reliability.same_run import weights_fingerprint
from ..utils.io import sha256_of
from ..utils.messages import nearest

# Groups of the training scripts' short help: option -> help, or `None` for that of the dataclass.
TRAINING = {
    "num_train_epochs": "passes over the data; --max_steps overrides it",
    "max_steps": "optimizer steps; -1: as many as --num_train_epochs needs",
    "per_device_train_batch_size": "sequences per process and micro-batch",
    "gradient_accumulation_steps": "micro-batches per optimizer step",
    "learning_rate": "peak learning rate of AdamW",
    "warmup_steps": "steps of linear warm-up; below 1: share of all steps",
    "weight_decay": "weight decay of AdamW, not applied to biases and norms",
    "bf16": "bfloat16 autocast; losses stay in float32",
    "gradient_checkpointing": "trade one more forward pass for less memory; default: False",
    "torch_compile": "compile the model",
    "dataloader_num_workers": "processes that prepare batches; 0: the main process",
    "seed": "seed of weights, order, masks and dropout",
    "use_cpu": "use the CPU even if there is a GPU",
}
PRETRAINING = {**TRAINING, "matmul_precision": None}
OUTPUT = {
    "output_dir": None,
    "save_strategy": "when to write checkpoints: steps, epoch or no",
    "save_steps": "steps between checkpoints; below 1: share of all steps",
    "save_total_limit": "checkpoints to keep",
    "eval_strategy": "when to evaluate before the end: steps, epoch or no",
    "logging_steps": "steps between logs; below 1: share of all steps",
    "report_to": "where to log, such as tensorboard",
    "push_to_hub": "push the finished model to the Hub",
    "hub_model_id": "the model's name on the Hub; default: that of --output_dir",
    "preempt_exit_code": None,
    "hang_timeout": None,
    "allow_changed": None,
}
ATTENTION = "sdpa, eager or flash_attention_2 (needs flash-attn and --bf16 true); default: the model's, sdpa"


@dataclass
class TeacherArguments(PairingArguments):
    """Data and design of a teacher."""

    tokenizer: str | None = HfArg(default=None, help="BERT tokenizer, Hub id or folder; default: the world's")
    fixed_windows: bool = HfArg(default=False, help="use the same windows in every epoch instead of shifting them")
    streaming: bool = HfArg(default=False, help="read shard by shard, in memory that does not grow with the data")
    cache_dir: str = HfArg(default="outputs/cache", help="folder of prepared captions")
    held_out_videos: float | None = HfArg(
        default=None,
        help="share (below 1) or number of videos held out for evaluation; 0: none; default: 5 %%, at least two "
        "videos, at most 10000 windows",
    )
    shuffle_videos: bool = HfArg(default=False, help="control: pair every video's captions with another video's clips")
    text_model: str = HfArg(
        default="small", help=f"size of a new BERT ({', '.join(SIZES)}), or a checkpoint to start from"
    )
    contrast: str = HfArg(default="infonce", help=f"one of {', '.join(CONTRASTS)}; the paper uses hinge")
    mil_candidates: int | None = HfArg(
        default=None,
        help="texts that mil_nce takes as positives of a clip, an odd number: its own and as many before as after it; "
        f"default: {MIL_CANDIDATES}",
    )
    losses: str = HfArg(
        default="contrast+mlm", help=f"one of {', '.join(TEACHER_LOSSES)}; mlm is a control without video"
    )
    margin: float = HfArg(default=1.0, help="margin of the hinge losses: 1 in the paper; 0.2 learned more here")
    joint_size: int | None = HfArg(
        default=None,
        help="width to which token and clip vectors are projected; 64 for a vokenizer; default: no projection",
    )
    attn_implementation: str | None = HfArg(default=None, help=ATTENTION)

    def __post_init__(self):
        _check_names(self, contrast=CONTRASTS, losses=TEACHER_LOSSES, attn_implementation=ATTENTIONS)

    @property
    def design(self) -> dict[str, Any]:
        """Settings of the teacher's configuration."""
        names = ("losses", "contrast", "mil_candidates", "margin", "joint_size")
        design = {name: getattr(self, name) for name in names}
        if self.contrast == "mil_nce" and self.mil_candidates is None:
            design["mil_candidates"] = MIL_CANDIDATES
        return design


@dataclass
class StudentArguments:
    """Teacher, student and text of a distillation."""

    teacher: str | None = HfArg(
        default=None,
        help="folder or Hub id of a teacher, or of any model that reads text, such as openai/clip-vit-large-patch14; "
        "its tokenizer may differ from the student's; default: the world's",
    )
    teacher_dtype: Literal["float32", "float16", "bfloat16", "int8"] = HfArg(
        default="float32", help="precision of the frozen teacher; bfloat16 halves its memory, int8 needs bitsandbytes"
    )
    student: str = HfArg(
        default="small",
        help=f"size of a new student ({', '.join(SIZES)}), or checkpoint to start from "
        f"({', '.join(MODEL_TYPES)}, or a teacher, whose text encoder becomes the student)",
    )
    student_model_type: str | None = HfArg(
        default=None, help=f"model type of a new student: {', '.join(MODEL_TYPES)}; default: bert"
    )
    tokenizer: str | None = HfArg(
        default=None, help="BERT-like tokenizer of a new student, folder or Hub id; default: the teacher's"
    )
    attn_implementation: str | None = HfArg(default=None, help=ATTENTION)
    text: str | None = HfArg(default=None, help="text file, folder or Hub data set (id:config); default: the world's")
    world: str = HfArg(default="outputs/world", help="grounded world, used if --text is not given")
    no_probe: bool = HfArg(default=False, help="do not probe the student of the grounded world")
    block_tokens: int = HfArg(
        default=126, help="text tokens per block; at most the length of the teacher's training texts"
    )
    held_out_text: float | None = HfArg(
        default=None,
        help="share (below 1) or number of blocks held out for evaluation; 0: none; default: 2 %%, at least one "
        "batch, at most 10000",
    )
    vokens: str | None = HfArg(
        default=None, help="folder that `vidlankd vokenize` wrote, for the voken objective; default: none"
    )
    cache_dir: str = HfArg(default="outputs/cache", help="folder of tokenized text")
    num_proc: int = HfArg(default=1, help="processes for tokenizing")
    stream_text: bool = HfArg(default=False, help="tokenize the text while it downloads, without a copy on disk")

    def __post_init__(self):
        _check_names(self, student_model_type=MODEL_TYPES, attn_implementation=ATTENTIONS)

    def fingerprints(self) -> dict[str, str | None]:
        """Checksums of the files, or commits on the Hub, of teacher and student; `None` if unknown.

        Raises:
            ValueError: The folder of the teacher or of the student does not exist; the Hub is not asked for it.
        """
        if self.teacher is not None:
            check_path(self.teacher, "the teacher")
        if self.student not in SIZES:
            check_path(self.student, "the student")
        made_of = {"teacher": None if self.teacher is None else weights_fingerprint(self.teacher)}
        if self.student not in SIZES:
            made_of["student"] = weights_fingerprint(self.student)
        if self.vokens is not None:
            made_of["vokens"] = sha256_of(Path(self.vokens) / "vokens.npy")
        return made_of

    def with_num_vokens(self, objectives: dict[str, Any]) -> dict[str, Any]:
        """Adds the number of vokens in --vokens to the voken objective, if there is one.

        Raises:
            ValueError: The voken objective is used without --vokens.
        """
        if "voken" not in objectives:
            return objectives
        if self.vokens is None:
            raise ValueError("the voken objective needs --vokens: the folder that `vidlankd vokenize` wrote")
        recipe = objectives_recipe(objectives)
        recipe["voken"]["num_vokens"] = read_vokens_info(self.vokens)["num_vokens"]
        return recipe


def _check_names(arguments: Any, **known: Collection[str]) -> None:
    """Raises a `ValueError` if an argument has a value that is not among its known ones."""
    for name, names in known.items():
        value = getattr(arguments, name)
        if value is not None and value not in names:
            raise ValueError(f"--{name} is {value!r}: choose one of {', '.join(names)}{nearest(value, names)}")
