"""`manifest.json` of a checkpoint: its files with size and sha256, checked against what a checkpoint must contain.

A complete checkpoint has all files of the run's [`Layout`], and none of them is damaged. A checkpoint that lacks the
optimizer, or the random state of one process, is neither written nor resumed.
"""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..utils.io import sha256_of, sync_tree
from ..utils.json_files import read_text

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
RECORD = "run_record.json"
STATE = "trainer_state.json"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Layout:
    """What the checkpoints of a run consist of.

    Args:
        processes: Number of processes, each of which has a random state and a log state.
        sharding: "none", "fsdp", or DeepSpeed's stage: "zero0", which shards nothing; "zero1" and "zero2", where each
            process saves a part of the optimizer; "zero3", where each process saves a part of the weights too.
        scaler: Whether there is a gradient scaler (fp16).
    """

    processes: int = 1
    sharding: str = "none"
    scaler: bool = False

    def required(self) -> list[str]:
        """Patterns of file names. In a complete checkpoint, each matches a file."""
        ranks = range(self.processes)
        files = [STATE, RECORD, *map(self.rng_name, ranks), *map(self.log_state_name, ranks)]
        if self.sharding == "none":
            files += ["config.json", "model.safetensors*", "optimizer.pt", "scheduler.pt"]
        elif self.sharding == "fsdp":
            files += ["pytorch_model_fsdp*", "optimizer*", "scheduler.pt"]
        else:  # DeepSpeed's model states hold the scheduler
            files += ["config.json", "latest", "global_step*/*model_states.pt"]
            parts = {"zero0": [], "zero3": ["model", "optim"]}.get(self.sharding, ["optim"])
            files += [
                f"global_step*/*zero_pp_rank_{rank}_mp_rank_*{part}_states.pt" for rank in ranks for part in parts
            ]
        return files + ["scaler.pt"] * self.scaler

    def rng_name(self, rank: int) -> str:
        """File with the random state of a process, as the stock Trainer names it."""
        return f"rng_state_{rank}.pth" if self.processes > 1 else "rng_state.pth"

    def log_state_name(self, rank: int) -> str:
        """File with the sums of a process since the last log."""
        return f"log_state_{rank}_of_{self.processes}.json"

    def missing(self, names: Iterable[str]) -> list[str]:
        """The required files that are not among `names`."""
        names = list(names)
        return [pattern for pattern in self.required() if not any(fnmatchcase(name, pattern) for name in names)]


def seal(folder: Path, layout: Layout, save_id: str = "") -> None:
    """Checks that a checkpoint is complete and each file readable, flushes it to the disk, and writes the manifest.

    Args:
        folder: The checkpoint.
        layout: What it must contain.
        save_id: The same on each machine that writes this checkpoint, and in no other checkpoint.

    Raises:
        OSError: A file is missing or does not follow its format.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        check_format(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    missing = layout.missing(files) + _missing_shards(folder, files)
    if missing:
        raise OSError(f"the checkpoint lacks {', '.join(missing)}")
    manifest = {"format_version": FORMAT_VERSION, "save_id": save_id, "layout": asdict(layout), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    sync_tree(folder)


def verify_checkpoint(checkpoint: str | Path) -> str | None:
    """Returns what is wrong with a checkpoint, or `None` if it is complete and every file matches the manifest.

    A file that cannot be read, for whatever reason, counts as damaged.
    """
    try:
        return _find_fault(Path(checkpoint))
    except OSError as error:
        return f"it cannot be read ({type(error).__name__}: {error})"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its {MANIFEST} is damaged ({type(error).__name__})"


def _find_fault(checkpoint: Path) -> str | None:
    try:
        text = read_text(checkpoint / MANIFEST)
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was not written completely, or not by this package"
    manifest = json.loads(text)
    if manifest["format_version"] != FORMAT_VERSION:
        return f"its {MANIFEST} has version {manifest['format_version']!r}, this package reads {FORMAT_VERSION}"
    files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"its {MANIFEST} names {name}, which is outside the checkpoint"
    layout, _ = Layout(**manifest["layout"]), manifest["save_id"]
    if layout.processes > len(files):  # a damaged number must not fill the memory with names
        return f"it lacks files: it has only {len(files)}, but its run had {layout.processes} processes"
    missing = layout.missing(files)
    if missing:
        return f"it lacks {', '.join(missing)}"
    for name, (size, _) in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    for name, (_, digest) in files.items():
        if sha256_of(checkpoint / name) != digest:
            return f"{name} is damaged: its sha256 differs from the manifest"
    missing = _missing_shards(checkpoint, files)
    return f"it lacks {', '.join(missing)}" if missing else None


def read_save_id(checkpoint: Path) -> str:
    """Returns the id that a verified checkpoint shares with those that other machines wrote at the same time."""
    return str(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["save_id"])


def _missing_shards(folder: Path, files: Iterable[str]) -> list[str]:
    """Weight files that are not among `files`, although the index of a model in several files names them."""
    if INDEX not in files:
        return []
    weights = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return sorted(set(weights.values()) - set(files))


def check_format(path: Path) -> None:
    """Detects a file that was cut short without an error.

    Raises:
        OSError: The file does not follow its format.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
        elif path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} has another checksum")
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (SafetensorError, zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise OSError(f"{path.name} is not a complete file ({error})") from error
