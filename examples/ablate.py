"""Runs the paper's comparisons and writes their tables.

    vidlankd ablate --table objectives teacher --seeds 1 2 3

The tables compare objectives, teachers, features, heads, vokens, weights,
tokenizers, what the teacher reads, and a CLIP as the teacher, by default on the
grounded world. On your own data, give --config: a YAML file with the sections
pretrain_teacher (with features, captions and tokenizer), distill (with text)
and, for options of this command, ablate (docs/baselines.md). The result of
every run is a JSON file in --results; as long as it exists, the run is not
repeated. If a run fails, the tables lack its row.
"""

import shlex
import time
from pathlib import Path

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.ablations.report import write_table
from vidlankd_hf.experiments.ablations.run_seed import run_seed
from vidlankd_hf.experiments.ablations.runs import DATA, SeedRuns
from vidlankd_hf.experiments.ablations.tables import TABLES, WORLD_TABLES
from vidlankd_hf.experiments.ablations.tradeoff import points
from vidlankd_hf.experiments.world.tradeoff import draw_tradeoff
from vidlankd_hf.utils.messages import nearest
from vidlankd_hf.utils.yaml_files import read_yaml


def main() -> None:
    parser = CommandLine(__doc__)
    choices = [*TABLES, "all"]
    about = f"one or more of {', '.join(choices)}; default: all"
    parser.add_argument("--table", nargs="+", default=["all"], metavar="TABLE", help=about)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds of world and training; default: 1")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/ablations"), help="folder for all output")
    parser.add_argument("--results", type=Path, help="folder of the results; default: OUTPUT_DIR/results")
    parser.add_argument(
        "--launcher", help="command that starts each run, such as 'accelerate launch'; default: python"
    )
    parser.add_argument("--jobs", type=int, help="runs at the same time; default: 2, or 1 on your own data")
    args = parser.parse(section_needed=False)
    unknown = [table for table in args.table if table not in choices]
    if unknown:
        parser.error(f"there is no table {unknown[0]!r}: give {about}{nearest(unknown[0], choices)}")
    own = {} if parser.config is None else read_yaml(parser.config)
    recipes = {name: own[name] for name in DATA if name in own}
    config = parser.config if recipes else None
    parser.save_settings(args.output_dir, sections=recipes)
    tables = args.table
    if "all" in tables:
        tables = [name for name in TABLES if config is None or name not in WORLD_TABLES]
    elif config is not None and (wrong := sorted({*tables} & {*WORLD_TABLES})):
        raise ValueError(f"table {wrong[0]} is of the grounded world alone: leave it out, or leave your data out")
    names = list(dict.fromkeys(name for table in tables for name in TABLES[table][1]))
    results_dir = args.results or args.output_dir / "results"
    launcher = shlex.split(args.launcher) if args.launcher else None
    jobs = args.jobs or (2 if config is None and launcher is None else 1)

    started, results, failed = time.monotonic(), {}, []
    for seed in args.seeds:
        folders = args.output_dir / f"seed-{seed}", results_dir / f"seed-{seed}"
        runs = SeedRuns(seed, *folders, config)
        results[seed], failures = run_seed(runs, names, jobs, launcher)
        failed += [f"seed {seed}, {failure}" for failure in failures]

    written = [write_table(table, results, args.output_dir / "tables" / table) for table in tables]
    if config is None:
        draw_tradeoff(points(results), args.output_dir / "tables" / "tradeoff.png")
    for path in written:
        print(f"\n{path.read_text()}")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} min. Tables and figures: {args.output_dir / 'tables'}.")
    if failed:
        raise SystemExit("These runs failed, so the tables lack their rows:\n" + "\n".join(failed))


if __name__ == "__main__":
    run_example(main)
