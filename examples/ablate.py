"""Runs the paper's comparisons and writes their tables.

    vidlankd ablate --table objectives teacher --seeds 1 2 3

The tables compare objectives, teachers, features, heads, vokens, weights,
tokenizers, what the teacher reads, and a CLIP as the teacher, by default on the
grounded world. On your own data, give --config: a YAML file with the sections
pretrain_teacher (with features, captions and tokenizer), distill (with text)
and, for options of this command, ablate (docs/baselines.md). With --tasks or
--task_file, the students are also scored on tasks. The result of every run is a
JSON file in --results; as long as it exists, the run is not repeated. If a run
fails, the tables lack its row.
"""

import time

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.ablations.experiment import Experiment
from vidlankd_hf.experiments.ablations.report import write_table
from vidlankd_hf.experiments.ablations.runs import DATA
from vidlankd_hf.experiments.ablations.scores import SECTION, read_scoring
from vidlankd_hf.experiments.ablations.tables import TABLES, WORLD_TABLES
from vidlankd_hf.experiments.ablations.tradeoff import points
from vidlankd_hf.experiments.script_arguments import AblationArguments
from vidlankd_hf.experiments.world.tradeoff import draw_tradeoff
from vidlankd_hf.utils.messages import nearest
from vidlankd_hf.utils.yaml_files import read_yaml


def main() -> None:
    parser = CommandLine(__doc__, AblationArguments)
    (args,) = parser.parse(section_needed=False)
    choices = [*TABLES, "all"]
    tables = args.table or ["all"]
    unknown = [table for table in tables if table not in choices]
    if unknown:
        parser.error(
            f"there is no table {unknown[0]!r}: give some of {', '.join(choices)}{nearest(unknown[0], choices)}"
        )
    own = {} if parser.config is None else read_yaml(parser.config)
    sections = {name: own[name] for name in (*DATA, "make_world", SECTION) if name in own}
    config = parser.config if sections else None
    scoring = read_scoring(config, args.tasks, args.task_file, args.data)
    experiment = Experiment(args, [], config, scoring)
    if "all" in tables:
        tables = [name for name in TABLES if experiment.on_world or name not in WORLD_TABLES]
    elif not experiment.on_world and (wrong := sorted({*tables} & {*WORLD_TABLES})):
        raise ValueError(f"table {wrong[0]} is of the grounded world alone: leave it out, or leave your data out")
    experiment.names = list(dict.fromkeys(name for table in tables for name in TABLES[table][1]))
    parser.save_settings(experiment.folder, sections=sections)

    started = time.monotonic()
    failed = experiment.run(experiment.steps())
    results, scores, folder = experiment.results(), experiment.scores(), experiment.folder / "tables"
    written = [write_table(table, results, folder / table, scores) for table in tables]
    if experiment.on_world:
        draw_tradeoff(points(results), folder / "tradeoff.png")
    for path in written:
        print(f"\n{path.read_text()}")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} min. Tables and figures: {folder}.")
    if failed:
        raise SystemExit("These runs failed, so the tables lack their rows:\n" + "\n".join(failed))


if __name__ == "__main__":
    run_example(main)
