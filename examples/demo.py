"""The main job, end to end, on the grounded world: video -> teacher -> students -> what they know about looks.

Makes the world, trains a teacher and a control teacher on its videos, distils students on its text, probes them all
and writes results.json, report.md and report.png. Every step is a cell: what is finished is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from vidlankd_hf.runs import is_finished
from vidlankd_hf.world.recipe import OBJECTIVES
from vidlankd_hf.world.report import write_report

EXAMPLES = Path(__file__).parent


def cells_of(seed: int, folder: Path, thorough: bool) -> list[dict]:
    """The cells of one seed in order; each has a command, its run folder, and model and weights if it is probed."""
    world = folder / "world"
    common = ["--world", str(world), "--seed", str(seed), "--report_to", "none"]

    def teacher(model: str, name: str, *options: str) -> dict:
        command = ["pretrain_teacher.py", "--output_dir", str(folder / name), *common, *options]
        return {"name": name, "command": command, "run": folder / name, "model": model, "weights": {}}

    def student(model: str, name: str, weights: dict, taught_by: str = "teacher") -> dict:
        command = ["distill.py", "--output_dir", str(folder / "students" / name), *common,
                   "--teacher", str(folder / taught_by), "--objectives", json.dumps(weights),
                   "--no_probe"]  # fmt: skip
        return {
            "name": name,
            "command": command,
            "run": folder / "students" / name,
            "model": model,
            "weights": weights,
        }

    cells = [
        {"name": "world", "command": ["make_world.py", "--output_dir", str(world), "--seed", str(seed)]},
        teacher("teacher", "teacher"),
        teacher(None, "shuffled_teacher", "--shuffle_videos", "true"),
        *(student(model, model, weights) for model, weights in OBJECTIVES.items()),
        student("shuffled", "shuffled", OBJECTIVES["infonce"], taught_by="shuffled_teacher"),
    ]
    if thorough:
        cells += [
            student("nst", "nst_at_1", {"nst": 1.0}),
            teacher("teacher_hinge", "hinge_teacher", "--contrast", "hinge"),
        ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of world and training; default: 0")
    args = parser.parse_args()

    several = len(args.seeds) > 1
    jobs = [
        (seed, cell)
        for seed in args.seeds
        for cell in cells_of(seed, args.output_dir / f"seed-{seed}" if several else args.output_dir, several)
    ]
    started, rows, ran = time.monotonic(), [], 0
    for number, (seed, cell) in enumerate(jobs, 1):
        where = f"[{number}/{len(jobs)}] " + (f"seed {seed}: " if several else "") + cell["name"]
        if not cell.get("run") or not is_finished(cell["run"]):
            elapsed = time.monotonic() - started
            left = f", about {elapsed / ran * (len(jobs) - number + 1) / 60:.0f} min left" if ran > 1 else ""
            print(f"\n{where} ({elapsed / 60:.1f} min so far{left})", flush=True)
            run_example(*cell["command"])
            ran += 1
        if cell.get("model"):
            probe = Path(cell["run"]) / "probe.json"
            if not probe.exists():
                world = cell["command"][cell["command"].index("--world") + 1]
                run_example("probe.py", "--model", str(cell["run"]), "--world", world, "--output_json", str(probe))
            head = {"model": cell["model"], "weights": cell["weights"], "seed": seed}
            rows += [{**head, **score} for score in json.loads(probe.read_text())]
            (args.output_dir / "results.json").write_text(json.dumps(rows, indent=1) + "\n")

    write_report(args.output_dir / "results.json", args.output_dir)
    print(f"\n{(args.output_dir / 'report.md').read_text()}")
    print(
        f"Done in {(time.monotonic() - started) / 60:.1f} min. The report is in {args.output_dir / 'report.md'}, its "
        "figure in report.png.\nNext: accelerate launch examples/distill.py, or your own videos: docs/data.md"
    )


def run_example(script: str, *arguments: str) -> None:
    """Runs a sibling example; its output goes to the terminal."""
    environment = {"TOKENIZERS_PARALLELISM": "false", **os.environ}
    subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], check=True, env=environment)


if __name__ == "__main__":
    main()
