"""Finds the videos to extract: in a folder, glob pattern, list or manifest, local or at any URL that fsspec reads."""

import glob
import json
import logging
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec

from ..utils.addresses import hide_secrets, public_address, without_secrets
from ..utils.folders import files_below, listed
from ..utils.messages import number_of
from .packed import names_in_tar, rows_with_ids, size_of, split_packed, video_column

logger = logging.getLogger(__name__)

# A file with one of these suffixes must be a video; if it is not, it counts as failed. Other files that are not videos
# are left out.
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ogv", ".flv", ".wmv", ".ts")
MANIFEST_SUFFIXES = (".jsonl", ".parquet")
BYTES_PER_SECOND = 125_000  # 1 Mbit/s, to estimate the length of a video from its file size
UNKNOWN_SECONDS = 300.0  # assumed for remote files
MOST_SECONDS = 10**8  # three years


class Video(NamedTuple):
    """A video to extract.

    Args:
        id: Key of the video in the shards.
        path: A file, a URL such as `s3://bucket/talk.mp4`, or a video inside a file, such as `shard.tar::talk.mp4`.
        seconds: Estimated length, only used to divide the videos into shards.
    """

    id: str
    path: str
    seconds: float


class LeftOut(NamedTuple):
    """A file in a folder of videos that is not one of them, and why."""

    path: str
    reason: str


def find_videos(videos: str | Path | Iterable[str | Path], left_out: list[LeftOut] | None = None) -> list[Video]:
    """Finds videos and returns them sorted by id.

    Args:
        videos: One of

            - a folder: all videos in it, its subfolders and its tars are taken. A video is a file that FFmpeg can
              read, whatever its name; in a remote folder or a tar, a file with the suffix of a video;
            - a glob pattern;
            - a tar (WebDataset);
            - a list of paths; `shard.tar::talk.mp4` and `videos.parquet::ID` (or the number of a row) are videos
              inside a file;
            - a `.parquet` file with one column of videos as bytes, and optionally `id`;
            - a manifest: a `.jsonl` or `.parquet` file whose rows have `path` and optionally `id` and `duration` in
              seconds. Paths are relative to the manifest.

            Each can be a URL that fsspec reads. The default id of a video is its file name.
        left_out: If given, the files in the folder that are not videos are added to it. They are logged in any case.

    Raises:
        ValueError: There are no videos, two have the same id, or a row of a manifest is invalid.
    """
    others: list[LeftOut] = []
    try:
        found = list(_found(videos, others))
    except ValueError as error:
        raise ValueError(without_secrets(str(error))) from None
    except Exception as error:
        if not is_remote(str(videos)):
            raise
        problem = f"{videos} cannot be read: {type(error).__name__}: {error}"
        raise ValueError(hide_secrets(problem, str(videos))) from None  # the error has the complete address
    if others:
        names = listed([public_address(other.path) for other in others])
        logger.warning(
            f"{public_address(str(videos))}: left out {number_of(len(others), 'file')} other than videos: {names}"
        )
    if left_out is not None:
        left_out += others
    if not found:
        raise ValueError(
            f"No videos in {public_address(str(videos))!r}. Give a folder with files that FFmpeg can read, such as "
            f"*{', *'.join(VIDEO_SUFFIXES)}, a glob pattern, a manifest ({', '.join(MANIFEST_SUFFIXES)}) or a list of "
            "paths."
        )
    found.sort(key=lambda video: video.id)
    for one, other in zip(found, found[1:]):
        if one.id == other.id:
            paths = " and ".join(public_address(video.path) for video in (one, other))
            raise ValueError(
                f"{paths} have the same id {one.id!r}. By default the id is the file name: rename "
                "one of them, or write a manifest with a column id."
            )
    return found


def is_remote(path: str) -> bool:
    """Whether a path is a URL that fsspec reads, and not the name of a local file."""
    return ("://" in path or "::" in path) and not Path(path).exists() and split_packed(path) is None


def _found(videos: str | Path | Iterable[str | Path], left_out: list[LeftOut]) -> Iterable[Video]:
    if not isinstance(videos, (str, Path)):
        return [_video(str(path)) for path in videos]
    address = str(videos)
    if public_address(address).lower().endswith(MANIFEST_SUFFIXES) and "*" not in address:
        return _manifest(address)
    return [_video(path) for path in _listed(address, left_out)]


def _video(path: str, id: str | None = None, seconds: float | None = None) -> Video:
    if seconds is None:
        try:
            if is_remote(path):
                seconds = UNKNOWN_SECONDS
            elif split_packed(path):
                size = size_of(path)
                seconds = UNKNOWN_SECONDS if size is None else size / BYTES_PER_SECOND
            else:
                seconds = Path(path).stat().st_size / BYTES_PER_SECOND
        except (OSError, ValueError):  # the decoder will report it by name
            seconds = 0.0
    id = _file_name(path) if id is None else id
    try:
        id.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {ascii(id)} is not valid UTF-8: rename the file, or give another id") from None
    return Video(id, path, max(1.0, seconds))


def _file_name(path: str) -> str:
    """The last part of a path or address; of chained addresses, of the first one that has a path."""
    packed = split_packed(path)
    if packed:
        return posixpath.basename(packed[1])
    parts = public_address(path).split("::") if is_remote(path) else [path]
    part = next((part for part in parts if "://" in part), parts[-1])
    return posixpath.basename(part.rstrip("/"))


def _listed(folder_or_pattern: str, left_out: list[LeftOut]) -> list[str]:
    """The videos in a folder, or the files that a pattern matches; what else is in the folder goes to `left_out`."""
    if is_remote(folder_or_pattern):
        system, root = fsspec.core.url_to_fs(folder_or_pattern)
        is_folder = system.isdir(root)
        names = system.find(root) if is_folder else system.glob(root)
        paths = [system.unstrip_protocol(name) for name in names]
    elif not Path(folder_or_pattern).is_dir():  # file names can contain pattern characters
        is_file = Path(folder_or_pattern).is_file() or split_packed(folder_or_pattern)
        found = [folder_or_pattern] if is_file else glob.glob(folder_or_pattern, recursive=True)
        return [video for path in found for video in _in_tar(path, left_out)]
    else:
        is_folder, paths = True, [str(path) for path in files_below(folder_or_pattern)]
    if not is_folder:
        return paths
    videos = [path for path in paths if path.lower().endswith(VIDEO_SUFFIXES)]
    others = sorted(set(paths) - set(videos))
    if is_remote(folder_or_pattern):
        left_out += [LeftOut(public_address(path), "has no video suffix; a manifest can name it") for path in others]
        return videos
    from .probe import reasons_against  # decoders import this module

    videos += [video for path in others if path.lower().endswith(".tar") for video in _in_tar(path, left_out)]
    others = [path for path in others if not path.lower().endswith(".tar")]
    for path, reason in zip(others, reasons_against(others)):
        if reason is None:
            videos.append(path)
        else:
            left_out.append(LeftOut(path, reason))
    return videos


def _in_tar(path: str, left_out: list[LeftOut]) -> list[str]:
    """The videos in a local tar, by their suffix; of any other file, the file itself."""
    if not path.lower().endswith(".tar"):
        return [path]
    plain, others = names_in_tar(Path(path))
    others += [name for name in plain if not name.lower().endswith(VIDEO_SUFFIXES)]
    left_out += [LeftOut(f"{path}::{name}", "has no video suffix, or is not a plain file") for name in others]
    return [f"{path}::{name}" for name in plain if name.lower().endswith(VIDEO_SUFFIXES)]


def _manifest(manifest: str) -> Iterator[Video]:
    folder = posixpath.dirname(manifest) if is_remote(manifest) else str(Path(manifest).parent)
    for where, row in _rows(manifest):
        path, id, duration = (row.get(name) for name in ("path", "id", "duration"))
        valid = isinstance(path, str) and path and (id is None or isinstance(id, str))
        if not valid or not (duration is None or isinstance(duration, (int, float)) and 0 <= duration < MOST_SECONDS):
            raise ValueError(
                f"{manifest}, {where}: {row} must have a path (a string), and optionally an id (a string) and a "
                "duration in seconds. Correct this row."
            )
        if not is_remote(path):
            path = posixpath.join(folder, path) if is_remote(manifest) else str(Path(folder, path))
        yield _video(path, id, None if duration is None else float(duration))


def _rows(manifest: str) -> Iterator[tuple[str, dict]]:
    """Yields (location, row) for each row of a manifest."""
    with fsspec.open(manifest, "rb") as file:
        if public_address(manifest).lower().endswith(".parquet"):
            import pyarrow.parquet as parquet

            table = parquet.ParquetFile(file)
            column = None if "path" in table.schema_arrow.names else video_column(table.schema_arrow)
            if column and not is_remote(manifest):
                name = Path(manifest).name
                for row, id in rows_with_ids(table):
                    yield f"row {row}", {"path": f"{name}::{row}", "id": f"{name}-{row}" if id is None else id}
                return
            if "path" not in table.schema_arrow.names:
                raise ValueError(f"{manifest} has the columns {table.schema_arrow.names}, but needs 'path'.")
            columns = [name for name in ("path", "id", "duration") if name in table.schema_arrow.names]
            rows = (row for batch in table.iter_batches(columns=columns) for row in batch.to_pylist())
            yield from ((f"row {number}", row) for number, row in enumerate(rows))
            return
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{manifest}, line {number} is not JSON ({error}). Correct it.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{manifest}, line {number}: {row!r} must be an object with a path. Correct it.")
            yield f"line {number}", row
