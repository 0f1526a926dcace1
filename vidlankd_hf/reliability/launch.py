"""Checks that a launch runs what was requested.

Some launches exit 0 while running something else: `MULTI_CPU` without mpirun is one process, FSDP on CPU is plain DDP,
and the processes of a GPU configuration do not find each other on a machine without GPUs.
"""

import os
import sys
from pathlib import Path

import psutil
from accelerate.commands.config import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from transformers import Trainer, TrainingArguments

from ..utils.messages import number_of
from .ranks import wait_for_all


def describe_launch(args: TrainingArguments) -> str:
    """Describes a run in one line: number of processes, parallelism, device and precision."""
    kind = args.distributed_state.distributed_type.value
    if args.deepspeed_plugin is not None:
        kind = f"DeepSpeed ZeRO-{args.deepspeed_plugin.zero_stage}"
    elif fsdp_requested() and args.device.type != "cpu":
        kind = "FSDP"
    precision = {"no": "fp32"}.get(args.mixed_precision, args.mixed_precision)
    parallelism = [] if kind == "NO" else [kind]
    processes = number_of(args.world_size, "process", "processes")
    return ", ".join([processes, *parallelism, args.device.type, precision])


def check_launch(args: TrainingArguments, processes: int | None, on_gpus: bool) -> None:
    """Compares the running launch with the one that was requested.

    Args:
        args: Training arguments of the run.
        processes: How many processes were requested; `None` if unknown.
        on_gpus: Whether GPUs were requested.

    Raises:
        ValueError: They differ; the message names both and the remedy.
    """
    real = describe_launch(args)
    if processes is not None and processes != args.world_size:
        raise ValueError(
            f"{processes} processes were requested, but this run has {args.world_size} ({real}): on CPU use "
            "accelerate_configs/cpu.yaml or torchrun; MULTI_CPU needs mpirun"
        )
    if on_gpus and args.world_size > 1 and args.device.type == "cpu":
        raise ValueError(
            f"GPUs were requested, but this run is {real}: check that they are visible, or use a configuration with "
            "`use_cpu: true`, such as accelerate_configs/cpu.yaml or cpu_zero2.yaml"
        )
    if fsdp_requested() and args.device.type == "cpu":
        raise ValueError(
            f"FSDP was requested, but this run is {real}: accelerate has no FSDP on CPU; use "
            "accelerate_configs/cpu_zero3.yaml to shard there"
        )


def end_run(trainer: Trainer, exit_code: int = 0) -> None:
    """Waits for all processes, then closes trackers and the process group: the last line of a script.

    If `--push_to_hub` failed, the process exits with code 1 and prints the command that pushes the model.

    Under DeepSpeed the process exits without finalizing the interpreter, because a few launches otherwise ended in
    SIGABRT ("terminate called without an active exception"), for a reason that was not found.

    Args:
        trainer: The run.
        exit_code: Exit code under DeepSpeed.
    """
    wait_for_all("finishes the run")
    trainer.accelerator.end_training()
    not_pushed = getattr(trainer, "push_error", None)
    if not_pushed:
        print(not_pushed, file=sys.stderr)
        exit_code = exit_code or 1
    if trainer.args.deepspeed_plugin is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    if not_pushed:
        raise SystemExit(exit_code)


def requested_launch() -> tuple[int | None, bool | None]:
    """Returns the number of processes requested from the launcher, and whether on CPU; `None` where unknown."""
    words = launcher_words()
    if words is None:
        return (int(os.environ["WORLD_SIZE"]) if "WORLD_SIZE" in os.environ else None), None
    options, _ = launch_command_parser().parse_known_args(words)
    if options.cpu:
        return options.num_processes, True
    if options.config_file is None and not os.path.isfile(default_config_file):
        return options.num_processes, None
    config = load_config_from_file(options.config_file)
    return options.num_processes or getattr(config, "num_processes", None), config.use_cpu


def requested_precision() -> str:
    """Returns the launcher's `mixed_precision`: no, bf16 or fp16.

    Raises:
        ValueError: It is another value, such as fp8.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f"mixed_precision is {precision!r} for the launcher, but it must be no, bf16 or fp16")
    return precision


def fsdp_requested() -> bool:
    """Whether FSDP was requested from the launcher."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def launcher_words() -> list[str] | None:
    """The command line after `accelerate launch` if that started this process, directly or through a shell."""
    try:
        commands = [process.cmdline() for process in psutil.Process().parents()]
    except psutil.Error:
        return None
    for words in commands:
        for i, word in enumerate(words):
            name = Path(word).name
            if name in ("accelerate.commands.launch", "accelerate-launch"):
                return words[i + 1 :]
            if name in ("accelerate", "accelerate.commands.accelerate_cli") and words[i + 1 : i + 2] == ["launch"]:
                return words[i + 2 :]
        if words and Path(words[0]).name.startswith("python"):
            return None  # a Python program, not the launcher, started this script, as examples start each other
    return None
