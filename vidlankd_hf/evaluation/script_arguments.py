"""Command-line arguments of the scripts that fine-tune, compare and ground models."""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..data.script_arguments import PairingArguments
from . import TASKS
from .grounding import ALIGNED


@dataclass
class TaskArguments:
    """Model, task and data of a fine-tuning run."""

    model: str = HfArg(help="checkpoint with its tokenizer: Hub id or folder")
    task: str | None = HfArg(
        default=None,
        help="task such as sst2, squad or tracie; docs/downstream.md lists them; default: that of --task_file",
    )
    task_file: str | None = HfArg(default=None, help="YAML file of your own task, instead of --task; default: none")
    eval_only: bool = HfArg(default=False, help="score a fine-tuned model without training")
    data: str | None = HfArg(default=None, help="folder in the official layout (docs/downstream.md); default: the Hub")
    seeds: int = HfArg(default=1, help="number of seeds, counted from 1")
    learning_rates: list[float] | None = HfArg(
        default=None, help="learning rates to try, each with all seeds; default: the task's"
    )
    max_length: int | None = HfArg(default=None, help="tokens per text")
    train_rows: int | None = HfArg(default=None, help="train on this many rows; default: all")
    eval_rows: int | None = HfArg(default=None, help="evaluate on this many rows; default: all")
    submission: bool = HfArg(default=False, help="write the official submission files for the unlabeled splits")
    keep_model: bool = HfArg(default=False, help="save the model of every seed; --push_to_hub does so too")
    no_card: bool = HfArg(default=False, help="do not add the score to the model's README.md")


@dataclass
class GroundingArguments(PairingArguments):
    """Sentences, models and clips."""

    sentences: list[str] | None = HfArg(
        default=None, help="sentences to show; default: three held-out ones of the world"
    )
    teacher: str = HfArg(default="outputs/teacher", help="teacher trained with a contrastive loss")
    student: str = HfArg(default="outputs/student", help="student with its distillation heads")
    no_student: bool = HfArg(default=False, help="show only the teacher")
    objective: str | None = HfArg(
        default=None, help=f"objective whose head to use; default: the first of {', '.join(ALIGNED)}"
    )
    videos: str | None = HfArg(default=None, help="folder of the video files, for the frames; default: the world's")
    max_length: int | None = HfArg(default=None, help="tokens per window; default: 128, for the world 32")
    streaming: bool = HfArg(
        default=False, help="read captions from disk, and search --num_clips clips that are drawn at random"
    )
    num_clips: int = HfArg(default=50_000, help="clips to search with --streaming; all if there are fewer")
    cache_dir: str = HfArg(default="outputs/cache", help="folder of prepared captions with --streaming")
    num_nearest: int = HfArg(default=6, help="clips shown for each token")
    heat_clip: str | None = HfArg(default=None, help="id of the heat map's clip; default: one near the sentence")
    window: int = HfArg(default=1, help="video steps that the encoder sees for each step of the heat map")
    output_dir: str = HfArg(default="outputs/grounding", help="new folder for the page and pictures")
    batch_size: int = HfArg(default=64, help="clips per batch")

    def load_clips(self, tokenizer):
        """Loads the clips, or draws `num_clips` of them with `streaming`."""
        length, options = self.max_length or 128, {"streams": self.streams, "max_unpaired": self.max_unpaired}
        clips = self.load(tokenizer, length, streaming=self.streaming, cache_dir=self.cache_dir, **options)
        return clips.draw(min(self.num_clips, len(clips)), seed=0) if self.streaming else clips


@dataclass
class ComparisonArguments:
    """Which models are compared on which tasks."""

    models: list[str] = HfArg(help="Hub ids or folders, with tokenizers; the first is the baseline")
    tasks: list[str] | None = HfArg(default=None, help=f"some of {', '.join(TASKS)}; default: those of --task_file")
    task_file: list[str] | None = HfArg(default=None, help="YAML files of your own tasks; default: none")
    eval_only: bool = HfArg(default=False, help="score fine-tuned models without training")
    jobs: int = HfArg(default=1, help="models or tasks to score at the same time, each in its own process")
    names: list[str] | None = HfArg(
        default=None, help="the models' names in the report; default: the last parts of their paths"
    )
    seeds: int = HfArg(default=3, help="seeds per fine-tuned task")
    data: str | None = HfArg(default=None, help="folder with one folder per task; default: the Hub")
    learning_rates: list[float] | None = HfArg(default=None, help="learning rates to try; default: each task's")
    train_rows: list[str] | None = HfArg(default=None, help="TASK=ROWS: train on this many rows; default: all")
    output_dir: str = HfArg(default="outputs/downstream", help="folder for results and report")
    launcher: str | None = HfArg(
        default=None, help="command that starts each fine-tuning run, such as 'accelerate launch'; default: python"
    )
    no_card: bool = HfArg(default=False, help="do not add scores to the models' README.md")
    finetune_options: str | None = HfArg(
        default=None,
        help="JSON of options for `vidlankd finetune`, which may also be given directly; default: none",
    )
