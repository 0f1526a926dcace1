"""A run of many small steps, in which memory, open files and child processes must stop growing."""

import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from small_runs import TrainerCallback, forked, start_or_resume, wait

SAMPLES = 200  # measurements during the run
WARM = 0.2  # fraction of the run in which caches may fill


class Meter(TrainerCallback):
    """Measures (step, memory of the process in MiB, open files, child processes, seconds) every few steps."""

    def __init__(self, path: Path, every: int):
        self.path, self.every, self.samples, self.begun = path, every, [], time.monotonic()
        self.process = psutil.Process()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0:
            gc.collect()
            memory = self.process.memory_info().rss / 2**20
            seconds = round(time.monotonic() - self.begun, 2)
            files, children = self.process.num_fds(), len(self.process.children(recursive=True))
            self.samples.append((state.global_step, round(memory, 2), files, children, seconds))
            self.path.write_text(json.dumps(self.samples))


def drill(work: Path, steps: int, output: Path) -> Iterator[tuple[bool, int]]:
    samples = work / "long.json"
    every = max(1, steps // SAMPLES)
    seldom = max(1, steps // 20)
    options = {
        "max_steps": steps,
        "save_steps": seldom,
        "eval_strategy": "steps",
        "eval_steps": seldom,
        "logging_steps": max(1, steps // 100),
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,
    }

    def body():
        meter = Meter(samples, every)
        meter.process = psutil.Process()
        start_or_resume(work / "long", callbacks=[meter], **options)

    code = wait(forked(body, work / "long.txt"), 3000)
    rows = json.loads(samples.read_text())
    (output / "long_run.json").write_text(json.dumps(rows) + "\n")
    plot(rows, output / "long_run.png")
    flat = is_flat(rows)
    yield code == 0 and rows[-1][0] == steps // every * every and flat, 0


def is_flat(rows: list) -> bool:
    """Whether open files and children do not grow after the warm-up, and memory by less than 2 % or 10 MiB."""
    rows = rows[int(WARM * len(rows)) :]
    third = max(1, len(rows) // 3)
    early, late = (sorted(r[1] for r in part)[third // 2] for part in (rows[:third], rows[-third:]))
    # Compares maxima, since a measurement can fall between the workers of two epochs.
    steady = all(max(r[i] for r in rows[:third]) >= max(r[i] for r in rows[-third:]) for i in (2, 3))
    return steady and late - early < max(10, 0.02 * early)


def plot(rows: list, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(7, 6), sharex=True)
    for axis, column, label in zip(axes, (1, 2, 3), ("memory, MiB", "open files", "child processes")):
        axis.plot([row[0] for row in rows], [row[column] for row in rows], linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.2 * max(row[column] for row in rows))
    axes[-1].set_xlabel("optimizer step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
