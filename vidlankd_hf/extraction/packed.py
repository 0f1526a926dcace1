"""Videos inside other files: `shard.tar::talk.mp4` and `videos.parquet::12` (a row) or `videos.parquet::ID`.

Only the video that is decoded is copied out, to a temporary file, which goes through the same decoders as any other.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..utils.messages import number_of
from ..utils.tars import Member, tar_members
from .limits import Limits

PACKED_SUFFIXES = (".tar", ".parquet")
COPY_BYTES = 2**22


def split_packed(path: str) -> tuple[Path, str] | None:
    """(file, member or row) of a video inside a local file; None for all other paths."""
    container, _, inside = path.partition("::")
    if not inside or "://" in path or not container.lower().endswith(PACKED_SUFFIXES) or Path(path).exists():
        return None
    return Path(container), inside


def copy_out(path: str, local: str, limits: Limits) -> Exception | None:
    """Copies a packed video to a file and returns the error, if any.

    Args:
        path: Its address.
        local: The file.
        limits: Limits of its size.
    """
    try:
        _copy(path, local, limits.download_bytes)
    except (ValueError, OSError) as error:
        return error
    return None


def _copy(path: str, local: str, most_bytes: int) -> None:
    container, inside = split_packed(path) or (Path(path), "")
    if container.suffix.lower() == ".parquet":
        content = _row(container, inside)
        _check_size(path, len(content), most_bytes)
        Path(local).write_bytes(content)
        return
    status = container.stat()
    members = _members(container, status.st_mtime_ns, status.st_size)
    if inside not in members:
        known = ", ".join(map(repr, list(members)[:3]))
        raise ValueError(
            f"{container} has no file {inside!r}, only {number_of(len(members), 'other')} ({known}, ...). Name one of "
            "them"
        )
    member = members[inside]
    _check_size(path, member.size, most_bytes)
    with open(container, "rb") as source, open(local, "wb") as target:
        source.seek(member.offset or 0)
        left = member.size
        while left:
            content = source.read(min(COPY_BYTES, left))
            if not content:
                raise ValueError(f"{container} is truncated: it ends inside {inside!r}. Fetch it again")
            left -= target.write(content)


def size_of(path: str) -> int | None:
    """Bytes of a video in a tar; None where they are not known before it is read."""
    container, inside = split_packed(path) or (Path(path), "")
    if container.suffix.lower() != ".tar":
        return None
    status = container.stat()
    member = _members(container, status.st_mtime_ns, status.st_size).get(inside)
    return member.size if member else None


def names_in_tar(container: Path) -> tuple[list[str], list[str]]:
    """Names of the plain files in a tar, and of everything else in it."""
    members = tar_members(container)
    plain = [member.name for member in members if member.offset is not None]
    return plain, [member.name for member in members if member.offset is None]


def video_column(schema: Any) -> str | None:
    """The column of a table that holds videos as bytes, or as `{"bytes", "path"}` as `datasets` writes them."""
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    names = [field.name for field in schema if holds_bytes(field.type)]
    return names[0] if len(names) == 1 else None


def rows_with_ids(table: Any) -> Iterator[tuple[int, str | None]]:
    """Yields (row, id) for each row of a Parquet file; the id is that of the column id, if there is one."""
    if "id" not in table.schema_arrow.names:
        yield from ((row, None) for row in range(table.metadata.num_rows))
        return
    ids = (id for batch in table.iter_batches(columns=["id"]) for id in batch.column("id").to_pylist())
    yield from enumerate(ids)


def _row(container: Path, inside: str) -> bytes:
    """The video of a row, given its id or else its number; rows before it in its row group are read one at a time."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(container, pre_buffer=False, buffer_size=2**20) as table:
            name = video_column(table.schema_arrow)
            if name is None:
                names = table.schema_arrow.names
                raise ValueError(
                    f"{container} has the columns {names}, but needs exactly one that holds videos as bytes"
                )
            status = container.stat()
            row = _rows(container, status.st_mtime_ns, status.st_size).get(inside)
            if row is None and inside.isdecimal() and int(inside) < table.metadata.num_rows:
                row = int(inside)
            if row is None:
                raise ValueError(
                    f"{container} has {table.metadata.num_rows} rows, and none with the id or number {inside!r}. Name "
                    "one of them"
                )
            group = 0
            while row >= table.metadata.row_group(group).num_rows:
                row, group = row - table.metadata.row_group(group).num_rows, group + 1
            batches = table.iter_batches(batch_size=1, row_groups=[group], columns=[name])
            held = next(batch for i, batch in enumerate(batches) if i == row).column(name)[0].as_py()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{container} is not a Parquet file, or is damaged ({error}). Fetch it again") from error
    content = held["bytes"] if isinstance(held, dict) else held
    if content is None:
        raise ValueError(
            f"{container}, row {inside}: {name} has no bytes. Name its file in a manifest, or remove the row"
        )
    return content


@lru_cache(maxsize=16)
def _rows(container: Path, changed: int, size: int) -> dict[str, int]:
    """The row of each id; the first one, if several rows have it."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(container) as table:
        rows = [(str(id), row) for row, id in rows_with_ids(table) if id is not None]
    return dict(reversed(rows))


@lru_cache(maxsize=16)
def _members(container: Path, changed: int, size: int) -> dict[str, Member]:
    return {member.name: member for member in tar_members(container) if member.offset is not None}


def _check_size(path: str, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise ValueError(f"{path} has {size:,} bytes, more than {most_bytes:,}. Remove it")
