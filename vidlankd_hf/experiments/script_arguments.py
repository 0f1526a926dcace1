"""Command-line arguments of the scripts that vokenize a corpus and run experiments."""

import json
from dataclasses import dataclass
from typing import Any

from transformers.hf_argparser import HfArg

from ..data.script_arguments import PairingArguments
from .ablations.tables import TABLES


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


@dataclass
class ExperimentArguments:
    """Seeds and tasks of an experiment, and where it runs."""

    seeds: list[int] | None = HfArg(default=None, help="seeds of world and training; default: 1")
    tasks: list[str] | None = HfArg(
        default=None, help="score the students on these tasks (docs/downstream.md); default: those of --config"
    )
    task_file: list[str] | None = HfArg(default=None, help="YAML files of your own tasks; default: those of --config")
    data: str | None = HfArg(default=None, help="folder with one folder per task; default: the Hub")
    output_dir: str = HfArg(default="outputs/ablations", help="folder for all output")
    results: str | None = HfArg(default=None, help="folder of the results; default: OUTPUT_DIR/results")
    launcher: str | None = HfArg(
        default=None, help="command that starts each training, such as 'accelerate launch'; default: python"
    )
    jobs: int | None = HfArg(
        default=None,
        help="runs at the same time, each on one GPU; a run of --launcher is alone; default: 2, or 1 on your own data",
    )
    slurm: str | None = HfArg(
        default=None,
        help='JSON of submitit parameters, such as \'{"slurm_partition": "gpu", "timeout_min": 1440, '
        '"gpus_per_node": 1}\': run everything as Slurm jobs; default: none',
    )

    @property
    def slurm_parameters(self) -> dict[str, Any] | None:
        """The parameters of `--slurm`; `None` without it.

        Raises:
            ValueError: It is not a JSON object, or `--jobs` is given too.
        """
        if self.slurm is None:
            return None
        try:
            parameters = json.loads(self.slurm)
        except (ValueError, RecursionError):
            parameters = None
        if not isinstance(parameters, dict):
            raise ValueError(
                f"--slurm {self.slurm[:60]} is not JSON of submitit parameters: write "
                '\'{"slurm_partition": "gpu", "timeout_min": 1440}\''
            )
        if self.jobs is not None:
            raise ValueError("--jobs is for this machine: leave it out, Slurm decides how many --slurm jobs run")
        return parameters


@dataclass
class AblationArguments(ExperimentArguments):
    """Which tables to make."""

    table: list[str] | None = HfArg(default=None, help=f"some of {', '.join(TABLES)}, all; default: all")


@dataclass
class ReproductionArguments(ExperimentArguments):
    """Which of the paper's tables to make, and what to print before."""

    output_dir: str = HfArg(default="outputs/reproduction", help="folder for all output")
    tables: list[int] | None = HfArg(default=None, help="numbers of the paper's tables; default: 1 to 9")
    dry_run: bool = HfArg(default=False, help="only print every run with its command and estimated cost")
    tflops: float | None = HfArg(
        default=None,
        help="with --dry_run: TFLOP/s that one training run sustains, on all its GPUs; default: as measured in the "
        "finished runs of OUTPUT_DIR",
    )
