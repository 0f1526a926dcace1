"""The package's jobs on one GPU: extracting features, the demo, and the grounded world with larger models.

    python benchmarks/gpu/jobs.py --part main_job --output_dir results --work_dir work
    python benchmarks/gpu/jobs.py --part evidence --output_dir results --work_dir work

A job that does not end in time keeps what its folder in --work_dir holds, and the same command continues it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from results import Results, SkippedError, arguments, parser_of  # isort: skip  (finds the others)

LARGER = {"learning_rate": "2e-4", "bf16": "true"}
TINY_WORLD = {"num_nouns": 48, "num_videos": 48, "num_sentences": 960, "vocab_size": 384, "num_pretrain_scenes": 64,
              "frame_pretrain_steps": 5, "clip_pretrain_steps": 5}  # fmt: skip
TINY = {"max_steps": 4, "warmup_steps": 0, "save_strategy": "no"}


class Jobs:
    """Runs scripts within the time that is left."""

    def __init__(self, args, results: Results):
        self.args, self.results, self.folder = args, results, args.work_dir.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.world = self.folder / "demo" / "world"

    def run(self, *words: object, **options: object) -> float:
        """Runs a Python script or module in the work folder; returns its seconds.

        Raises:
            RuntimeError: It failed, or ran out of time; the message is the end of its output.
        """
        command = [sys.executable, *map(str, words)]
        command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        began, log = time.monotonic(), self.folder / "log.txt"
        with open(log, "w") as file:
            process = subprocess.Popen(command, cwd=self.folder, stdout=file, stderr=file, start_new_session=True)
            try:
                code = process.wait(timeout=max(1.0, self.results.seconds_left()))
            except subprocess.TimeoutExpired:
                code = "out of time"
                os.killpg(process.pid, 9)  # the demo's runs are its children
                process.wait()
        if code != 0:
            raise RuntimeError(f"{' '.join(command[1:4])}: {code}: {log.read_text()[-1500:]}")
        return time.monotonic() - began

    def script(self, name: str, **options: object) -> float:
        return self.run("-m", f"vidlankd_hf.examples.{name}", **options)

    # ---- the main job ----

    def extraction(self) -> dict:
        """Frames per second with ResNet-152 and VideoMAE-base, and how long they wait for decoding."""
        import extraction

        videos, report = self.folder / "videos", self.folder / "extraction.json"
        count, minutes = (2, 0.1) if self.args.rehearse else (16, 1.0)
        videos.mkdir(exist_ok=True)
        for i in range(count):
            if not (videos / f"{i}.mp4").is_file():
                extraction.write_film(videos / f"{i}.part.mp4", minutes)
                os.replace(videos / f"{i}.part.mp4", videos / f"{i}.mp4")
        backbones = "tiny" if self.args.rehearse else "paper"
        self.run(Path(extraction.__file__).resolve(), "--precisions", "fp32" if self.args.rehearse else "bf16",
                 videos=videos, backbones=backbones, rounds=1, output_json=report)  # fmt: skip
        (found,) = json.loads(report.read_text())
        pictures, clips = found["steps"]
        seen = {"frames_per_second": (pictures + 16 * clips) / found["seconds"], "videos": count,
                "minutes_each": minutes}  # fmt: skip
        return {**seen, **{key: found[key] for key in ("waiting", "of_ready_rate", "times_plain", "seconds", "steps")}}

    def demo(self) -> dict:
        """`vidlankd demo`, its table and time; in a rehearsal its stages with a tiny world and few steps."""
        folder = self.folder / "demo"
        if self.args.rehearse:
            took = self.script("make_world", output_dir=self.world, seed=1, **TINY_WORLD)
            took += self.larger("rehearsed_demo", "tiny", ("infonce",), TINY)["training_seconds"]
            return {"minutes": took / 60, "note": "stages of the demo with a tiny world"}
        try:
            took = self.script("demo", output_dir=folder)
        finally:
            done = {p.parent.name: json.loads(p.read_text()) for p in sorted(folder.glob("**/probe.json"))}
            if done:
                self.results.checks["demo_so_far"] = {"log": done}
                self.results.save()
        del self.results.checks["demo_so_far"]
        return {"minutes": took / 60, "rows": json.loads((folder / "results.json").read_text()),
                "log": (folder / "report.md").read_text()}  # fmt: skip

    # ---- evidence with larger models ----

    def larger(self, name: str, size: str, objectives: tuple[str, ...], options: dict) -> dict:
        """A teacher and students of one size on the grounded world, probed."""
        folder, common = self.folder / name, {"world": self.world, "seed": 1, "report_to": "none", **options}
        took = 0.0
        if not (folder / "teacher" / "model.safetensors").is_file():
            took += self.script("pretrain_teacher", output_dir=folder / "teacher", text_model=size, **common)
        scores = {"teacher": self.probe(folder / "teacher")}
        for objective in ("text_only", *objectives):
            weights = {} if objective == "text_only" else {objective: 1.0}
            if not (folder / objective / "model.safetensors").is_file():
                student = {"student": size, "objectives": json.dumps(weights), "teacher": folder / "teacher"}
                took += self.script("distill", output_dir=folder / objective, **student, **common)
            scores[objective] = self.probe(folder / objective)
            self.results.checks[f"{name}_so_far"] = {"accuracies": scores, "training_seconds": took}
            self.results.save()
        return self.results.checks.pop(f"{name}_so_far")

    def probe(self, model: Path) -> dict[str, float]:
        report = model / "probe.json"
        self.script("probe", model=model, world=self.world, output_json=report)
        return {score["attribute"]: score["accuracy"] for score in json.loads(report.read_text())}

    def evidence(self) -> dict:
        if not (self.world / "nouns.json").is_file():
            raise SkippedError("the demo has not made the world")
        if self.args.rehearse:
            return self.larger("evidence", "tiny", ("infonce",), TINY)
        return self.larger("evidence", "small", ("infonce", "crd"), LARGER)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--part", choices=("main_job", "evidence"), required=True)
    parser.add_argument("--work_dir", type=Path, required=True, help="folder for models and data")
    args = arguments(parser)
    results = Results(args.part, args)
    jobs = Jobs(args, results)
    checks = {"main_job": ("extraction", "demo"), "evidence": ("evidence",)}[args.part]
    for name in args.only or checks:
        results.run(name, getattr(jobs, name))
    sys.exit(f"failed: {', '.join(results.failed)}" if results.failed else 0)


if __name__ == "__main__":
    main()
