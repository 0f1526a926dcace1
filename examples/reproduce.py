"""Runs the paper's complete experiment and fills its tables 1 to 9.

    vidlankd reproduce --config examples/recipes/base.yaml --dry_run
    vidlankd reproduce --config examples/recipes/base.yaml --jobs 8 \\
        --launcher "accelerate launch --num_processes 8"

The file has the sections of the training scripts, and evaluate_all with the
tasks. The command prepares the data, trains teachers, controls and students,
fine-tunes the students, and writes the tables next to the published numbers.
Without data it uses the grounded world. --dry_run prints every run with its
command and estimated cost. After an interruption, the same command continues.
"""

import time
from functools import partial

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.ablations.experiment import Experiment
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.ablations.scores import read_scoring
from vidlankd_hf.experiments.grid import ExperimentRun, Step, make_run
from vidlankd_hf.experiments.reproduce.cost import COUNTS_FILE, Estimator, write_plan
from vidlankd_hf.experiments.reproduce.paper import TABLES, students_of
from vidlankd_hf.experiments.reproduce.planned_runs import PlannedRuns
from vidlankd_hf.experiments.reproduce.tables import write_tables
from vidlankd_hf.experiments.script_arguments import ReproductionArguments
from vidlankd_hf.utils.examples import flags
from vidlankd_hf.utils.yaml_files import read_yaml

SECTIONS = ("convert_howto100m", "pretrain_teacher", "distill", "evaluate_all", "prepare", "make_world")


def main() -> None:
    parser = CommandLine(__doc__, ReproductionArguments)
    (args,) = parser.parse(section_needed=False)
    numbers = args.tables or [*TABLES]
    if unknown := sorted(set(numbers) - set(TABLES)):
        parser.error(f"the paper has no table {unknown[0]} here: give some of {', '.join(map(str, TABLES))}")
    own = {} if parser.config is None else read_yaml(parser.config)
    sections = {name: own[name] for name in SECTIONS if name in own}
    config = parser.config if sections else None
    scoring = read_scoring(config, args.tasks, args.task_file, args.data, of_world=("world",))
    experiment = Experiment(
        args, students_of(numbers, scoring.names), config, scoring, PlannedRuns if args.dry_run else SeedRuns
    )
    steps = experiment.steps(None if experiment.on_world else preparation_step(experiment, config))
    if args.dry_run:
        estimator = Estimator(experiment, args.tflops)
        write_plan([estimator.cost(step) for step in steps], estimator)
        return

    parser.save_settings(experiment.folder, sections=sections)
    started = time.monotonic()
    failed = experiment.run(steps)
    folder = experiment.folder / "tables"
    written = write_tables(numbers, experiment.results(), experiment.scores(), experiment.on_world, folder)
    print(f"\n{written.read_text()}")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} min. In {folder}: tables.md, tables.json, tables.csv.")
    if failed:
        raise SystemExit("These runs failed, so the tables lack their rows:\n" + "\n".join(failed))


def preparation_step(experiment: Experiment, config: str) -> Step:
    options = {"config": config, "counts": experiment.folder / COUNTS_FILE}
    run = ExperimentRun(experiment.folder / "preparation", "prepare", flags(options), None)
    return Step("preparation", partial(make_run, run, None))


if __name__ == "__main__":
    run_example(main)
