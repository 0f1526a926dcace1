"""Runs everything that the ablation tables need for one seed."""

import subprocess

from tqdm.auto import tqdm

from ..grid import probe, run_in_parallel
from .report import accuracy
from .runs import SeedRuns
from .tables import ROWS


def run_seed(runs: SeedRuns, names: list[str], jobs: int, launcher: list[str] | None) -> tuple[dict, list[str]]:
    """Trains the students that have no stored result yet, with their teachers and vokens.

    Args:
        runs: The seed's runs.
        names: Rows of the tables.
        jobs: Number of runs at the same time.
        launcher: Command that starts each run; `None` means the Python interpreter.

    Returns:
        Results by row, and a message for each run that failed.
    """
    results = {name: runs.result(name) for name in ROWS}
    pending = [name for name in names if results[name] is None]
    results = {name: result for name, result in results.items() if result is not None}
    failed = []

    def recording_failures(work):
        def call(item, quiet):
            try:
                return work(item, quiet)
            except (ValueError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
                failed.append(f"{item}: {error}")
                return f"FAILED {failed[-1]}"

        return call

    def make(run, quiet):
        run.make(quiet, launcher)
        return run.folder, run.log if quiet else None

    def make_teacher(name, quiet):
        folder, log = make(runs.teacher_run(name), quiet)
        return str(folder) if runs.world is None else f"{folder}: probe {accuracy(probe(folder, runs.world, log)):.2f}"

    def vokenize(name, quiet):
        return str(make(runs.vokens_run(name), quiet)[0])

    def distill(name, quiet):
        folder, log = make(runs.student_run(name), quiet)
        kept = results[name] = runs.keep(name, log)
        scored = f"probe {accuracy(kept['probe']):.2f}, " if "probe" in kept else ""
        return f"{folder}: {scored}MLM loss {kept['mlm_loss']:.2f}"

    if pending and runs.world is not None:
        runs.world_run().make(quiet=False)
    if any(ROWS[name].byte_level for name in pending):
        runs.make_byte_level_tokenizer()
    teachers = list(dict.fromkeys(ROWS[name].teacher for name in pending))
    vokens = [name for name in pending if ROWS[name].num_vokens]
    total = len(teachers) + len(vokens) + len(pending)
    with tqdm(total=total, desc=f"seed {runs.seed}", unit="run", smoothing=0) as progress:
        for work, items in ((make_teacher, teachers), (vokenize, vokens), (distill, pending)):
            run_in_parallel(recording_failures(work), items, jobs, progress)
    return results, failed
