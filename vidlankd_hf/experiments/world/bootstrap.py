"""Makes the parts of the grounded world that a script needs, if they are missing."""

import shlex
from pathlib import Path

from ...hub.model_cards import PROBE_FILE
from ...reliability.run_dir import run_script
from ...utils.examples import EXAMPLES
from .recipe import WORLD_SEED

FILES = {"captions": "captions.jsonl", **{name: name for name in ("features", "tokenizer", "videos", "text")}}


def make_world_if_missing(args, world: str) -> None:
    """Builds the grounded world in `world`; every rank waits for it.

    Args:
        args: Training arguments of the run; they must exist already, so that the ranks know of each other.
        world: Folder of the world.
    """
    _make_if_missing(args, Path(world, "world.json"), "make_world", "--output_dir", world, "--seed", str(WORLD_SEED))


def make_teacher_if_missing(args, world: str, teacher: str) -> None:
    """Trains the grounded world's default teacher in the folder `teacher`; every rank waits for it."""
    options = ["--world", world, "--output_dir", teacher, "--seed", str(WORLD_SEED), "--report_to", "none"]
    _make_if_missing(args, Path(teacher, "model.safetensors"), "pretrain_teacher", *options)


def _make_if_missing(args, made: Path, example: str, *options: str) -> None:
    with args.main_process_first(local=False):
        if not made.exists():
            print(f"{made} is missing: making it now with {example}.py {shlex.join(options)}", flush=True)
            run_script(EXAMPLES / f"{example}.py", *options)


def use_world(own) -> None:
    """Replaces the paths in the script arguments `own` that are `None` by those of the world `own.world`."""
    for name, file in FILES.items():
        if getattr(own, name, "") is None:
            setattr(own, name, str(Path(own.world, file)))


def use_existing_world(own, parser, instead: str) -> None:
    """As [`use_world`]; if there is no world, ends the script with a message that names the option `instead`."""
    if not Path(own.world, "world.json").exists():
        parser.error(f"{own.world} holds no world: make it with `vidlankd make-world`, or give {instead}")
    use_world(own)


def probe_student(trainer, world: str) -> None:
    """Probes the saved student of a trainer, prints its scores and adds them to its model card."""
    folder = trainer.args.output_dir
    if trainer.args.process_index == 0:
        print("Linear probe: what the student knows about visual attributes that never occur in its training text:\n")
        options = ["--model", folder, "--world", world, "--output_json", str(Path(folder, PROBE_FILE))]
        run_script(EXAMPLES / "probe.py", *options)
        trainer.create_model_card()
    if trainer.args.push_to_hub:
        trainer.push_to_hub("Results of the probe")
