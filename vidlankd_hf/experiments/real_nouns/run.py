"""Runs everything that the report needs for one seed."""

from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from .figure import draw_colours
from .nouns import benchmark_nouns
from .pictures import find_pictures
from .report import CONTROL, nouns_of
from .runs import MINILM, PICTURES, SeedRuns
from .tables import BEST, ROWS, TEACHERS


def run_seed(runs: SeedRuns, names: Sequence[str]) -> tuple[dict[str, dict], list[str]]:
    """Trains and scores what has no stored result yet: one run after the other, with its teacher.

    Args:
        runs: The seed's runs.
        names: Rows of `ROWS`.

    Returns:
        Results by row, those of the teachers included, and a message for each run that failed.
    """
    every = [PICTURES, MINILM, *TEACHERS, *ROWS]
    results = {name: result for name in every if (result := runs.result(name)) is not None}
    failed: list[str] = []
    wanted: list[str] = [PICTURES, MINILM]
    for name in names:
        teacher = [ROWS[name].teacher] if ROWS[name].objectives else []
        wanted += [step for step in (*teacher, name) if step not in wanted]
    pending = [name for name in wanted if name not in results]
    with tqdm(total=len(pending), desc=f"seed {runs.seed}", unit="run", smoothing=0) as progress:
        for name in pending:
            try:
                results[name] = make(runs, name)
            except (ValueError, RuntimeError, OSError) as error:
                failed.append(f"{name}: {error}")
                tqdm.write(f"FAILED {failed[-1]}")
            progress.update()
    return results, failed


def make(runs: SeedRuns, name: str) -> dict:
    """Trains what a row needs, scores it and stores the result."""
    if name not in (PICTURES, MINILM):
        runs.base_run().make(quiet=True)
        if name in TEACHERS:
            runs.teacher_run(name).make(quiet=True)
        else:
            if ROWS[name].objectives:
                runs.teacher_run(ROWS[name].teacher).make(quiet=True)
            runs.student_run(name).make(quiet=True)
    return runs.keep(name)


def draw_before_and_after(results: dict[str, dict], cache: Path, benchmarks: Path, path: Path) -> bool:
    """Draws the colors of nouns for the report by text-only and by `BEST`; returns whether both have results."""
    if not {CONTROL, BEST} <= set(results):
        return False
    pictures = find_pictures(cache, benchmark_nouns(benchmarks))
    nouns = nouns_of({0: results}, "coda", "report", "pictured")
    draw_colours(results[CONTROL], results[BEST], pictures, benchmarks, nouns, path)
    return True
