"""Runs the paper's comparisons and writes their tables: objectives, teachers, features, heads, vokens, weights.

    python examples/ablate.py --table objectives teacher --seeds 1 2 3

By default on the grounded world. On your own data give --config: a YAML file with the sections pretrain_teacher (with
features, captions and tokenizer) and distill (with text), and ablate for options of this script; see
docs/baselines.md. Every run is a cell: what is kept of it is a JSON file in --results, and it is not run again while
that file is there. A run that fails leaves its row out.
"""

import shlex
import subprocess
import time
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from vidlankd_hf.cli import CommandLine
from vidlankd_hf.experiments.ablations.report import accuracy, write_table
from vidlankd_hf.experiments.ablations.runs import DATA, SeedRuns
from vidlankd_hf.experiments.ablations.tables import ROWS, TABLES
from vidlankd_hf.experiments.grid import run_in_parallel

EXAMPLES = Path(__file__).parent


def run_seed(runs: SeedRuns, names: list[str], jobs: int, launcher: list[str] | None) -> tuple[dict, list[str]]:
    """Runs what is not kept yet of the rows `names`; returns what is kept, by row, and what failed."""
    results = {name: runs.result(name) for name in ROWS}
    pending = [name for name in names if results[name] is None]
    results = {name: result for name, result in results.items() if result is not None}
    failed = []

    def shielded(work):
        def call(item, quiet):
            try:
                return work(item, quiet)
            except (ValueError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
                failed.append(f"{item}: {error}")
                return f"FAILED {failed[-1]}"

        return call

    def make_teacher(name, quiet):
        cell = runs.teacher_run(name)
        cell.make(quiet, launcher)
        scored = ""
        if runs.world is not None:
            scored = f": probe {accuracy(runs.probe(cell.folder, cell.log if quiet else None)):.2f}"
        return f"{cell.folder}{scored}"

    def vokenize(name, quiet):
        cell = runs.vokens_run(name)
        cell.make(quiet, launcher)
        return str(cell.folder)

    def distil(name, quiet):
        cell = runs.student_run(name)
        cell.make(quiet, launcher)
        kept = results[name] = runs.keep(name, cell.log if quiet else None)
        scored = f"probe {accuracy(kept['probe']):.2f}, " if "probe" in kept else ""
        return f"{cell.folder}: {scored}MLM loss {kept['mlm_loss']:.2f}"

    if pending and runs.world is not None:
        runs.world_run().make(quiet=False)
    teachers = list(dict.fromkeys(ROWS[name].teacher for name in pending))
    vokens = [name for name in pending if ROWS[name].num_vokens]
    total = len(teachers) + len(vokens) + len(pending)
    with tqdm(total=total, desc=f"seed {runs.seed}", unit="cell", smoothing=0) as progress:
        for work, items in ((make_teacher, teachers), (vokenize, vokens), (distil, pending)):
            run_in_parallel(shielded(work), items, jobs, progress)
    return results, failed


def main() -> None:
    parser = CommandLine(__doc__)
    choices = [*TABLES, "all"]
    parser.add_argument(
        "--table", nargs="+", choices=choices, default=["all"], metavar="TABLE", help=f"of {', '.join(choices)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of world and training")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/ablations"), help="where results are written")
    parser.add_argument("--results", type=Path, help="where finished cells are kept; default: OUTPUT_DIR/results")
    parser.add_argument("--launcher", help="starts each run, such as 'accelerate launch ...'; default: python")
    parser.add_argument("--jobs", type=int, help="runs side by side; default: 2 on the grounded world, 1 on your data")
    args = parser.parse(section_needed=False)
    own = {} if parser.config is None else yaml.safe_load(Path(parser.config).read_text())
    recipes = {name: own[name] for name in DATA if name in own}
    config = parser.config if recipes else None
    parser.save_settings(args.output_dir, sections=recipes)
    tables = list(TABLES) if "all" in args.table else args.table
    names = list(dict.fromkeys(name for table in tables for name in TABLES[table][1]))
    results_dir = args.results or args.output_dir / "results"
    launcher = shlex.split(args.launcher) if args.launcher else None
    jobs = args.jobs or (2 if config is None and launcher is None else 1)

    started, results, failed = time.monotonic(), {}, []
    for seed in args.seeds:
        folders = args.output_dir / f"seed-{seed}", results_dir / f"seed-{seed}"
        runs = SeedRuns(seed, *folders, EXAMPLES, config)
        results[seed], failures = run_seed(runs, names, jobs, launcher)
        failed += [f"seed {seed}, {failure}" for failure in failures]

    written = [write_table(table, results, args.output_dir / "tables" / table) for table in tables]
    for path in written:
        print(f"\n{path.read_text()}")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} min. Tables and figures: {args.output_dir / 'tables'}.")
    if failed:
        raise SystemExit("These failed, and their rows are left out:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
