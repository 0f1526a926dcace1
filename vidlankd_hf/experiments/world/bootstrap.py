"""Makes the parts of the grounded world that a script needs, if they are missing."""

import shlex
from pathlib import Path

from ...hub.model_cards import PROBE_FILE
from ...models.configuration import SIZES
from ...reliability.run_dir import run_script
from ...utils.examples import EXAMPLES, flags
from ...utils.locks import lock_file
from .recipe import LENGTH, WORLD_SEED

FILES = {"captions": "captions.jsonl", **{name: name for name in ("features", "tokenizer", "videos", "text")}}


def use_world(own) -> None:
    """Points a script to the grounded world `own.world`. One process builds it if it is missing; the others wait.

    Args:
        own: Script arguments; paths that are `None` become those of the world.

    Raises:
        ValueError: Captions or videos are given, but no features.
    """
    _refuse_data_without_features(own)
    options = {"output_dir": own.world, "seed": WORLD_SEED}
    _make_if_missing(Path(own.world, "world.json"), "make_world", options)
    _fill_in(own)


def make_teacher_if_missing(world: str, teacher: str) -> None:
    """Trains the grounded world's default teacher in the folder `teacher`, in one process; the others wait for it."""
    options = {"world": world, "output_dir": teacher, "seed": WORLD_SEED, "report_to": "none"}
    _make_if_missing(Path(teacher, "model.safetensors"), "pretrain_teacher", options)


def _make_if_missing(made: Path, example: str, options: dict) -> None:
    words = flags(options)
    if made.exists():
        return
    # The example holds the lock until it ends, even if this process is killed: the next start waits for it.
    with lock_file(made.parent.with_name(f".{made.parent.name}.making")) as held:
        if not made.exists():
            print(f"{made} is missing: making it now with {example}.py {shlex.join(words)}", flush=True)
            run_script(EXAMPLES / f"{example}.py", *words, lock=held)


def use_existing_world(own, parser, instead: str) -> None:
    """Points a script to the grounded world `own.world`, or ends it with a message that names the option `instead`.

    Args:
        own: Script arguments; paths that are `None` become those of the world, and lengths those of its recipe.
        parser: Parser of the script.
        instead: Option to give if there is no world.

    Raises:
        ValueError: Captions or videos are given, but no features.
    """
    _refuse_data_without_features(own)
    try:
        check_world(own.world, instead)
    except ValueError as error:
        parser.error(str(error))
    _fill_in(own)


def check_world(world: str, instead: str) -> None:
    """Raises a `ValueError` that names the option `instead` if the folder `world` holds no finished world."""
    if not Path(world, "world.json").exists():
        raise ValueError(f"{world} holds no world: make it with `vidlankd make-world`, or give {instead}")


def _refuse_data_without_features(own) -> None:
    """Stops before the world is made: the features of its videos do not belong to the user's captions."""
    given = [name for name in ("captions", "videos") if getattr(own, name, None) is not None]
    if given and getattr(own, "features", None) is None:
        raise ValueError(
            f"--{given[0]} needs --features, the features of your videos: make them with `vidlankd extract`; without "
            f"both, the command uses the grounded world {own.world}"
        )


def _fill_in(own) -> None:
    """Replaces the script arguments that are `None` by the world's."""
    paths = {name: str(Path(own.world, file)) for name, file in FILES.items()}
    if getattr(own, "student", None) not in (None, *SIZES):
        del paths["tokenizer"]  # a student that starts from a checkpoint has its own
    for name, value in {**paths, "max_length": LENGTH, "block_tokens": LENGTH - 2}.items():
        if getattr(own, name, "") is None:
            setattr(own, name, value)


def probe_student(trainer, world: str) -> None:
    """Probes the saved student of a trainer, prints its scores and adds them to its model card."""
    folder = trainer.args.output_dir
    if trainer.args.process_index == 0:
        print("Linear probe: what the student knows about visual attributes that never occur in its training text:\n")
        options = {"model": folder, "world": world, "output_json": Path(folder, PROBE_FILE)}
        run_script(EXAMPLES / "probe.py", *flags(options))
        trainer.create_model_card()
    if trainer.args.push_to_hub:
        trainer.push_to_hub("Results of the probe")
