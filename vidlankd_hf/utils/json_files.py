"""Reads JSON files that may be damaged, or made by others: an error names the file and what to do."""

import json
import os
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 2**30


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a regular file.

    Raises:
        OSError: The file cannot be read, is a pipe or device, which may never end, or has more than a gigabyte.
        UnicodeDecodeError: The file is not UTF-8.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")
    if status.st_size > MOST_BYTES:
        raise OSError(f"{path} has {status.st_size:,} bytes, but at most {MOST_BYTES:,} are read")
    return Path(path).read_text(encoding="utf-8")


def read_json(path: str | Path, kind: type[dict] | type[list], remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        kind: `dict` if the file must hold an object, `list` if a list.
        remedy: What to do if the file is damaged, for the message.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or holds something else.
    """
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, kind):
            raise ValueError(f"it is not a JSON {'object' if kind is dict else 'list'}")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    return content
