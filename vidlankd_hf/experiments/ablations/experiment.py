"""An experiment: the runs of several seeds and the scores of their students, from its settings to stored results."""

import shlex
from pathlib import Path

from tqdm.auto import tqdm

from ..grid import Step, run_steps
from ..jobs import on_slurm, on_this_machine
from ..script_arguments import ExperimentArguments
from .run_seed import steps_of_seed
from .runs import SeedRuns, has_own_data
from .scores import Scoring, read_scores
from .tables import ROWS


class Experiment:
    """Rows of tables for several seeds.

    Args:
        args: Seeds, folders, and where it runs.
        names: Rows of `ROWS`.
        config: Settings file; `None` for the grounded world as it is.
        scoring: The tasks on which the students are scored.
        runs_class: Makes the runs of a seed.

    Raises:
        ValueError: The settings contradict each other.
    """

    def __init__(
        self,
        args: ExperimentArguments,
        names: list[str],
        config: str | None,
        scoring: Scoring,
        runs_class: type[SeedRuns] = SeedRuns,
    ):
        self.names, self.scoring, self.slurm = names, scoring, args.slurm_parameters
        self.folder = Path(args.output_dir)
        self.on_world = config is None or not has_own_data(config)
        if "world" in scoring.names and not self.on_world:
            raise ValueError("the task world is of the grounded world alone: leave it out, or leave your data out")
        self.launcher = shlex.split(args.launcher) if args.launcher else None
        self.jobs = args.jobs or (2 if self.on_world and self.launcher is None else 1)
        if self.jobs < 1:
            raise ValueError(f"--jobs is {self.jobs}: give 1 or more")
        results = Path(args.results) if args.results else self.folder / "results"
        self.runs = {
            seed: runs_class(seed, self.folder / f"seed-{seed}", results / f"seed-{seed}", config)
            for seed in args.seeds or [1]
        }

    def steps(self, preparation: Step | None = None) -> list[Step]:
        """Returns the steps without a stored result; `preparation` is finished before all others."""
        first = () if preparation is None else (preparation.name,)
        steps = [
            step
            for runs in self.runs.values()
            for step in steps_of_seed(runs, self.names, self.scoring, self.launcher, first)
        ]
        return [*([] if preparation is None or not steps else [preparation]), *steps]

    def run(self, steps: list[Step]) -> list[str]:
        """Runs steps; returns a message for each that failed."""
        where = on_this_machine(self.jobs) if self.slurm is None else on_slurm(self.folder / "slurm", self.slurm)
        with where as submit, tqdm(total=len(steps), desc="runs", unit="run", smoothing=0) as progress:
            return [f"{name}: {why}" for name, why in run_steps(steps, submit, progress).items()]

    def results(self) -> dict[int, dict[str, dict]]:
        """Reads the stored results: `{seed: {row name: result}}`."""
        found = {seed: {name: runs.result(name) for name in ROWS} for seed, runs in self.runs.items()}
        return {seed: {name: kept for name, kept in one.items() if kept is not None} for seed, one in found.items()}

    def scores(self) -> dict[int, dict[str, dict[str, dict]]]:
        """Reads the stored scores on the experiment's tasks: `{seed: {row name: {task: entry}}}`."""
        return {
            seed: {
                name: {task: entry for task, entry in entries.items() if task in self.scoring.names}
                for name, entries in read_scores(runs.results).items()
            }
            for seed, runs in self.runs.items()
        }
