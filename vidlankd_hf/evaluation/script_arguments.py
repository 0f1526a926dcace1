"""Command-line arguments of the scripts that fine-tune, compare and ground models."""

from dataclasses import dataclass, field

from ..data.script_arguments import PairingArguments
from . import TASKS
from .grounding import ALIGNED


@dataclass
class TaskArguments:
    """What is fine-tuned on what."""

    model: str = field(metadata={"help": "checkpoint with its tokenizer, Hub id or folder"})
    task: str = field(metadata={"help": "task such as sst2, squad or tracie; docs/downstream.md lists them"})
    data: str | None = field(default=None, metadata={"help": "folder in the official layout; default: the Hub"})
    seeds: int = field(default=1, metadata={"help": "number of seeds: 1, 2, ..."})
    learning_rates: list[float] | None = field(
        default=None, metadata={"help": "learning rates to try, each with all seeds; default: the recipe's"}
    )
    max_length: int | None = field(default=None, metadata={"help": "tokens per text; default: the recipe's"})
    train_rows: int | None = field(default=None, metadata={"help": "train on this many rows; default: all"})
    eval_rows: int | None = field(default=None, metadata={"help": "evaluate on this many rows; default: all"})
    submission: bool = field(default=False, metadata={"help": "write the official files for the unlabelled splits"})
    keep_model: bool = field(default=False, metadata={"help": "save every seed's model; --push_to_hub does so, too"})
    no_card: bool = field(default=False, metadata={"help": "do not add the result to the model's README.md"})


@dataclass
class GroundingArguments(PairingArguments):
    """Sentences, models and clips."""

    sentences: list[str] | None = field(
        default=None, metadata={"help": "default: three that the world's student has not read"}
    )
    teacher: str = field(default="outputs/teacher", metadata={"help": "teacher trained with a contrast"})
    student: str = field(default="outputs/student", metadata={"help": "student with its distillation heads"})
    no_student: bool = field(default=False, metadata={"help": "show the teacher alone"})
    objective: str | None = field(
        default=None, metadata={"help": f"objective whose head to use; default: the first of {', '.join(ALIGNED)}"}
    )
    videos: str | None = field(
        default=None, metadata={"help": "folder of the video files, for the frames; default: the world's"}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "tokens per window; default: 128, for the world 32"}
    )
    num_nearest: int = field(default=6, metadata={"help": "clips shown for each token"})
    heat_clip: str | None = field(
        default=None, metadata={"help": "id of the heat map's clip; default: the one nearest to the sentence"}
    )
    window: int = field(default=1, metadata={"help": "video steps seen at each time of the heat map"})
    output_dir: str = field(default="outputs/grounding", metadata={"help": "new folder for the page and pictures"})
    batch_size: int = field(default=64, metadata={"help": "clips per batch"})


@dataclass
class ComparisonArguments:
    """Which models are compared on which tasks."""

    models: list[str] = field(metadata={"help": "Hub ids or folders, with tokenizers; the first is the baseline"})
    tasks: list[str] = field(metadata={"help": f"of {', '.join(TASKS)}"})
    names: list[str] | None = field(
        default=None, metadata={"help": "names in the report; default: the last part of each model's path"}
    )
    seeds: int = field(default=3, metadata={"help": "seeds of every fine-tuned task"})
    data: str | None = field(default=None, metadata={"help": "folder with one folder per task; default: the Hub"})
    learning_rates: list[float] | None = field(
        default=None, metadata={"help": "learning rates to try; default: each task's recipe"}
    )
    train_rows: list[str] | None = field(
        default=None, metadata={"help": "TASK=ROWS: train on this many rows; default: all"}
    )
    output_dir: str = field(default="outputs/downstream", metadata={"help": "folder for results and report"})
    launcher: str | None = field(
        default=None, metadata={"help": "command that starts each fine-tuning, such as 'accelerate launch'; default: "
                                "python"}
    )  # fmt: skip
    no_card: bool = field(default=False, metadata={"help": "do not add results to the models' README.md"})
    finetune_options: str | None = field(
        default=None,
        metadata={"help": "JSON of options for `vidlankd finetune`; options that this command does not have are "
                  "passed on as well; default: none"},
    )  # fmt: skip
