"""Experiment grids: each run is one example that fills one folder, and finished runs are skipped."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..hub.model_cards import PROBE_FILE
from ..reliability.run_dir import is_finished, read_settings, run_script
from ..reliability.same_run import affects_results
from ..utils.examples import EXAMPLES, flags
from ..utils.json_files import read_json


@dataclass
class ExperimentRun:
    """One run of an experiment.

    Args:
        folder: Output folder of the run.
        example: Name of the example that fills the folder, such as `"distill"`, or of a module (with dots) that does.
        arguments: Its command-line arguments.
        settings: Settings that a finished folder must have been made with; `None` if the example checks this itself.
    """

    folder: Path
    example: str
    arguments: list[str]
    settings: dict[str, Any] | None

    @property
    def log(self) -> Path:
        """File for the output of a quiet run, next to the folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def command(self, launcher: list[str] | None = None) -> str:
        """The command line that does the same as [`make`]."""
        module = self.example if "." in self.example else f"vidlankd_hf.examples.{self.example}"
        return shlex.join([*(launcher or ["python"]), "-m", module, *self.arguments])

    def make(self, quiet: bool, launcher: list[str] | None = None, gpu: str | None = None) -> None:
        """Runs the example unless the folder is finished.

        Args:
            quiet: Use one thread and append the output to `log` instead of showing it.
            launcher: Command that starts the example, such as `["accelerate", "launch"]`.
            gpu: The GPU to use, as in `CUDA_VISIBLE_DEVICES`; `None` means the first one that is visible.

        Raises:
            ValueError: The folder is finished but was made with other settings.
        """
        held = None if self.settings is None else _settings_of(self.folder)
        if held is None:
            (self.folder / PROBE_FILE).unlink(missing_ok=True)  # of earlier weights
            script = self.example if "." in self.example else EXAMPLES / f"{self.example}.py"
            log = self.log if quiet else None
            run_script(script, *self.arguments, log=log, launcher=launcher, gpu=gpu)
            return
        wrong = {n: v for n, v in self.settings.items() if affects_results(n) and not _same(held.get(n), v)}
        if wrong:
            was = {name: held.get(name) for name in wrong}
            raise ValueError(f"{self.folder} was made with {was}, not {wrong}: remove it or give another --output_dir")


def _settings_of(folder: Path) -> dict | None:
    """Settings of a finished run or world; `None` if the folder is not finished."""
    if is_finished(folder):
        return read_settings(folder)
    path = folder / "world.json"
    return read_json(path, dict, "make the world again") if path.exists() else None


def _same(held: Any, asked: Any) -> bool:
    """Whether two settings are equal; a YAML file may hold `2e-4` as text."""
    if isinstance(asked, str) and isinstance(held, (int, float)) and not isinstance(held, bool):
        return float(asked) == held
    return held == asked


@dataclass
class Step:
    """A step of an experiment: something to make, and the steps that must be finished before.

    Args:
        name: A name that no other step has.
        work: Called with `quiet` and `gpu`, as in [`ExperimentRun.make`]; returns a line that says what was made.
        needs: Names of the steps whose results it reads. A name that belongs to no step is of something finished.
        alone: Whether it uses all GPUs of a machine.
    """

    name: str
    work: Callable[..., str]
    needs: tuple[str, ...] = ()
    alone: bool = False


def make_run(run: ExperimentRun, launcher: list[str] | None, quiet: bool, gpu: str | None) -> str:
    """The work of a step that only makes a run; see [`ExperimentRun.make`]."""
    run.make(quiet, launcher, gpu)
    return f"{run.folder} is ready."


def run_steps(steps: list[Step], submit: Callable[[list[Step]], list], progress: tqdm) -> dict[str, str]:
    """Starts every step as soon as the steps that it needs are finished. Other steps go on if one fails.

    Args:
        steps: The steps, each after those that it needs.
        submit: Starts steps and returns a job for each, with the methods `done`, `result` and `exception` of
            `concurrent.futures.Future`; see `jobs.py`.
        progress: Counts the steps.

    Returns:
        For each step that failed, or needs one that failed, the reason.
    """
    waiting, running = {step.name: step for step in steps}, dict[str, Any]()
    failed = dict[str, str]()
    while waiting or running:
        for step in list(waiting.values()):
            lost = next((name for name in step.needs if name in failed), None)
            if lost is not None:
                failed[step.name] = f"it needs {lost}, which failed"
                del waiting[step.name]
                progress.update()
        ready = [step for step in waiting.values() if not {*waiting, *running} & {*step.needs}]
        if ready:
            running |= zip([step.name for step in ready], submit(ready))
            waiting = {name: step for name, step in waiting.items() if name not in running}
        over = [name for name, job in running.items() if job.done()]
        for name in over:
            job = running.pop(name)
            error = job.exception()
            if error is not None:
                failed[name] = str(error) or type(error).__name__
            tqdm.write(f"FAILED {name}: {failed[name]}" if name in failed else job.result())
            progress.update()
        if not over and running:
            time.sleep(0.1)
    return failed


def affecting_results(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe that affect results."""
    return {name: value for name, value in recipe.items() if affects_results(name)}


def read_result(path: Path, identity: dict[str, Any]) -> dict | None:
    """Reads the stored result of a row; `None` if there is none.

    Args:
        path: JSON file of the result.
        identity: Settings that it must have been made with. In those named `*_recipe`, only what affects results
            counts.

    Raises:
        ValueError: The result was made with other settings.
    """
    if not path.exists():
        return None
    result = read_json(path, dict, "remove it to run it again")
    for key, value in json.loads(json.dumps(identity)).items():
        stored = result.get(key)
        if key.endswith("_recipe") and isinstance(stored, dict):
            stored = affecting_results(stored)
        if stored != value:
            raise ValueError(
                f"{path} has {key} {stored}, but this run has {value}: remove the file or give another "
                "--results folder"
            )
    return result


def held_out_language(student: Path) -> dict[str, float]:
    """How well a finished student models held-out text: `mlm_loss` in nats, and `mlm_accuracy` from 0 to 1.

    Raises:
        ValueError: The student has not been evaluated.
    """
    state = read_json(student / "trainer_state.json", dict, "remove its folder to train again")
    last = {key: value for entry in state["log_history"] for key, value in entry.items()}
    if "eval_mlm_loss" not in last:
        raise ValueError(f"{student} was not evaluated: train it with held-out text (--held_out_text)")
    return {name: last[f"eval_{name}"] for name in ("mlm_loss", "mlm_accuracy") if f"eval_{name}" in last}


def probe(model: Path, world: Path, log: Path | None = None, gpu: str | None = None) -> list[dict]:
    """Probes a model of the grounded world and stores the scores in `probe.json` in the model's folder."""
    path = model / PROBE_FILE
    if not path.exists() or path.stat().st_mtime < (model / "model.safetensors").stat().st_mtime:
        options = flags({"model": model, "world": world, "output_json": path})
        run_script(EXAMPLES / "probe.py", *options, log=log, gpu=gpu)
    return read_json(path, list, "remove it to probe again")
