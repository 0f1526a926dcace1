"""Experiments in cells: each is one example script that makes one folder; what is finished is not made again."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..reliability.run_dir import RUN_FILE, affects_results, is_finished, run_script


@dataclass
class ExperimentRun:
    """One run.

    Args:
        folder: What it makes.
        script: The example that makes it.
        arguments: Of its command line.
        settings: What the folder must say of itself if it is finished already; `None` where the script itself checks
            that and has nothing to do then.
    """

    folder: Path
    script: Path
    arguments: list[str]
    settings: dict[str, Any] | None

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def make(self, quiet: bool, launcher: list[str] | None = None) -> None:
        """Runs it unless its folder is finished; `quiet` with the output in `log`, and on one thread.

        Raises:
            ValueError: The folder is finished, but was made with other settings.
        """
        held = None if self.settings is None else _settings_of(self.folder)
        if held is None:
            run_script(self.script, *self.arguments, log=self.log if quiet else None, launcher=launcher)
            return
        wrong = {n: v for n, v in self.settings.items() if affects_results(n) and not _same(held.get(n), v)}
        if wrong:
            was = {name: held.get(name) for name in wrong}
            raise ValueError(f"{self.folder} was made with {was}, not {wrong}: remove it, or give --output_dir")


def _settings_of(folder: Path) -> dict | None:
    """What a finished run or world says of its settings; `None` if there is none."""
    if is_finished(folder):
        return json.loads((folder / RUN_FILE).read_text())["settings"]
    path = folder / "world.json"
    return json.loads(path.read_text()) if path.exists() else None


def _same(held: Any, asked: Any) -> bool:
    """Whether a setting is as asked for, where a file may say `2e-4` as text."""
    if isinstance(asked, str) and isinstance(held, (int, float)) and not isinstance(held, bool):
        return float(asked) == held
    return held == asked


def run_in_parallel(work: Callable[[Any, bool], str], items: list, jobs: int, progress: tqdm) -> None:
    """Calls `work(item, quiet)`, `jobs` at a time, and shows what it returns; quiet if there are several."""
    jobs = max(1, min(jobs, len(items)))
    with ThreadPoolExecutor(jobs) as pool:
        for line in pool.map(lambda item: work(item, jobs > 1), items):
            tqdm.write(line)
            progress.update()


def probe(model: Path, world: Path, script: Path, log: Path | None = None) -> list[dict]:
    """Scores of a model by the grounded world's probe, the example `script`, kept in `probe.json` beside it."""
    path = model / "probe.json"
    if not path.exists() or path.stat().st_mtime < (model / "model.safetensors").stat().st_mtime:
        run_script(script, "--model", str(model), "--world", str(world), "--output_json", str(path), log=log)
    return json.loads(path.read_text())
