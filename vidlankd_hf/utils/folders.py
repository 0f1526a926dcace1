"""Lists the files in a folder and its subfolders."""

import mimetypes
import os
from pathlib import Path


def files_below(folder: str | Path) -> list[Path]:
    """The files in a folder and all its subfolders, sorted, without pipes and devices.

    Symbolic links to folders are followed, but no folder is listed twice. Broken links are listed, so that opening one
    raises an error with its name.
    """
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [Path(parent, name) for name in names]
    return sorted(path for path in found if path.is_file() or not path.exists())


def listed(names: list[str], most: int = 5) -> str:
    """Joins the first `most` names and counts the others, for messages: "a, b and 3 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def is_media(path: Path) -> bool:
    """Whether a file has the suffix of a video, an audio file or an image."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith(("video/", "audio/", "image/"))
