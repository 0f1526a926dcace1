"""Runs the paper's comparisons and writes their tables: objectives, teachers, features, heads, vokens, weights.

    python examples/ablate.py --table objectives teacher --seeds 1 2 3

By default on the grounded world. On your own data give --config: a YAML file with the sections pretrain_teacher (with
features, captions and tokenizer) and distill (with text); see examples/recipes. Every run is a cell: what is kept of
it is a JSON file in --results, and it is not run again while that file is there.
"""

import argparse
import shlex
import time
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from vidlankd_hf.ablations.report import accuracy, write_table
from vidlankd_hf.ablations.runs import SeedRuns
from vidlankd_hf.ablations.tables import STUDENTS, TABLES
from vidlankd_hf.cells import side_by_side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=[*TABLES, "all"], default=["all"], help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of world and training (default: 1)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/ablations"), help="default: %(default)s")
    parser.add_argument("--results", type=Path, help="where finished cells are kept; default: OUTPUT_DIR/results")
    parser.add_argument("--config", help="YAML file of your data and recipe; default: the grounded world and its own")
    parser.add_argument(
        "--launcher", help="starts each run, such as 'accelerate launch --config_file ...'; default: python"
    )
    parser.add_argument("--jobs", type=int, help="runs side by side; default: 2 on the grounded world, 1 on your data")
    args = parser.parse_args()
    sections = None
    if args.config is not None:
        sections = yaml.safe_load(Path(args.config).read_text())
        missing = [name for name in ("pretrain_teacher", "distill") if name not in sections]
        if missing:
            parser.error(f"{args.config} has no section {' and no section '.join(missing)}: see examples/recipes")
    tables = list(TABLES) if "all" in args.table else args.table
    names = list(dict.fromkeys(name for table in tables for name in TABLES[table][1]))
    results_dir = args.results or args.output_dir / "results"
    jobs = args.jobs or (2 if args.config is None else 1)
    launcher = shlex.split(args.launcher) if args.launcher else None

    started, results = time.monotonic(), {}
    for seed in args.seeds:
        runs = SeedRuns(seed, args.output_dir / f"seed-{seed}", results_dir / f"seed-{seed}", args.config, sections)
        results[seed] = {name: runs.result(name) for name in STUDENTS}
        pending = [name for name in names if results[seed][name] is None]
        results[seed] = {name: result for name, result in results[seed].items() if result is not None}
        stages = [[runs.world_cell()]] if pending and args.config is None else []
        stages.append([runs.teacher_cell(name) for name in dict.fromkeys(STUDENTS[name].teacher for name in pending)])
        stages.append([runs.vokens_cell(name) for name in pending if STUDENTS[name].num_vokens])

        def make(cell, quiet):
            cell.make(quiet, launcher)
            return f"{cell.folder} is made."

        def distil(name, quiet):
            cell = runs.student_cell(name)  # noqa: B023
            cell.make(quiet, launcher)
            kept = results[seed][name] = runs.keep(name, cell.log if quiet else None)  # noqa: B023
            scored = f"probe {accuracy(kept['probe']):.2f}, " if "probe" in kept else ""
            return f"{cell.folder}: {scored}MLM loss {kept['mlm_loss']:.2f}"

        with tqdm(
            total=sum(map(len, stages)) + len(pending), desc=f"seed {seed}", unit="cell", smoothing=0
        ) as progress:
            for stage in stages:
                side_by_side(make, stage, jobs, progress)
            side_by_side(distil, pending, jobs, progress)

    written = [write_table(table, results, args.output_dir / "tables" / table) for table in tables]
    for path in written:
        print(f"\n{path.read_text()}")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} min. Tables and figures: {args.output_dir / 'tables'}.")


if __name__ == "__main__":
    main()
