"""Experiments in cells: each is one example script that makes one folder; what is finished is not made again."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .runs import RUN_FILE, is_finished, run_script

EXAMPLES = Path(__file__).parent.parent / "examples"
FREE_SETTINGS = ("save_steps", "save_total_limit", "logging_steps")


@dataclass
class Cell:
    """One run.

    Args:
        folder: What it makes.
        script: Name of the example.
        arguments: Of its command line.
        settings: What the folder must say of itself if it is there already.
    """

    folder: Path
    script: str
    arguments: list[str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def make(self, quiet: bool, launcher: list[str] | None = None) -> None:
        """Runs it unless its folder is complete; `quiet` with the output in `log`, and on one thread.

        Raises:
            ValueError: The folder is complete, but was made with other settings.
        """
        held = _settings_of(self.folder)
        if held is None:
            log = self.log if quiet else None
            run_script(EXAMPLES / self.script, *self.arguments, log=log, launcher=launcher)
            return
        wrong = {n: held.get(n) for n, v in self.settings.items() if held.get(n) != v and n not in FREE_SETTINGS}
        if wrong:
            asked = {name: self.settings[name] for name in wrong}
            raise ValueError(f"{self.folder} was made with {wrong}, not {asked}: remove it, or give --output_dir")


def _settings_of(folder: Path) -> dict | None:
    """What a finished run, world or vokenization says of its settings; `None` if there is none."""
    if is_finished(folder):
        return json.loads((folder / RUN_FILE).read_text())["settings"]
    for name in ("world.json", "info.json"):
        if (folder / name).exists():
            return json.loads((folder / name).read_text())
    return None


def side_by_side(work: Callable[[Any, bool], str], items: list, jobs: int, progress: tqdm) -> None:
    """Calls `work(item, quiet)`, `jobs` at a time, and shows what it returns; quiet if there are several."""
    jobs = max(1, min(jobs, len(items)))
    with ThreadPoolExecutor(jobs) as pool:
        for line in pool.map(lambda item: work(item, jobs > 1), items):
            tqdm.write(line)
            progress.update()


def probe(model: Path, world: Path, log: Path | None = None) -> list[dict]:
    """Scores of a model by the grounded world's probe, kept in `probe.json` beside it."""
    path = model / "probe.json"
    if not path.exists() or path.stat().st_mtime < (model / "model.safetensors").stat().st_mtime:
        arguments = ["--model", str(model), "--world", str(world), "--output_json", str(path)]
        run_script(EXAMPLES / "probe.py", *arguments, log=log)
    return json.loads(path.read_text())


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as command-line arguments."""
    arguments = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        arguments += [f"--{name}", *map(str, values)]
    return arguments
