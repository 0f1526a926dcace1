"""Finds the members of tar files, so that they can be read in place: nothing is unpacked."""

import tarfile
from pathlib import Path
from typing import NamedTuple


class Member(NamedTuple):
    """A member of a tar: offset and size of its content in bytes; `offset` is `None` if it is not a plain file."""

    name: str
    offset: int | None
    size: int


def tar_members(path: Path) -> list[Member]:
    """Lists the members of a tar, except folders, from the headers.

    Raises:
        ValueError: The file is not an uncompressed tar, or it is truncated.
    """
    members = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isdir():
                    is_plain = member.isreg() and not member.issparse()
                    members.append(Member(member.name, member.offset_data if is_plain else None, member.size))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not an uncompressed tar ({error}): decompress it, or fetch it again") from error
    size = path.stat().st_size
    for one in members:
        if one.offset is not None and one.offset + one.size > size:
            raise ValueError(f"{path} is truncated: it ends inside {one.name!r}. Fetch it again")
    return members
