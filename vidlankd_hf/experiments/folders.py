"""Output folders that are filled in stages: started, continued or refused, never overwritten."""

import json
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from ..utils.io import atomic_write
from ..utils.json_files import read_json
from ..utils.locks import LOCK


def begin_folder(folder: Path, settings: dict[str, Any], content: str) -> None:
    """Writes settings into a new folder, or checks that a folder was started with the same ones.

    Args:
        folder: The folder; it is created if missing.
        settings: Settings that determine what the folder will hold, as JSON values.
        content: What it will hold, for messages: `"world"` or `"vokens"`.

    Raises:
        ValueError: The folder was started with other settings, or holds other files.
    """
    path = folder / "settings.json"
    if path.is_file():
        held = read_json(path, dict, "remove the folder")
        changed = [
            f"{name} was {shortened(held.get(name))} and is now {shortened(value)}"
            for name, value in settings.items()
            if held.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"{folder} was started with other settings ({'; '.join(changed)}): choose another folder, or remove it"
            )
    elif folder.is_dir() and any(file.name != LOCK for file in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {content}: choose another folder, or remove it")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(settings, indent=2) + "\n")
