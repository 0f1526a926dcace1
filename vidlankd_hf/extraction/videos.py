"""Finds the videos to extract: in a folder, glob pattern, list or manifest, local or at any URL that fsspec reads."""

import glob
import json
import logging
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import fsspec

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ogv", ".flv", ".wmv", ".ts")
MANIFEST_SUFFIXES = (".jsonl", ".parquet")
BYTES_PER_SECOND = 125_000  # 1 Mbit/s, to estimate the length of a video from its file size
UNKNOWN_SECONDS = 300.0  # assumed for remote files


class Video(NamedTuple):
    """A video to extract.

    Args:
        id: Key of the video in the shards.
        path: A file, or a URL such as `s3://bucket/talk.mp4`.
        seconds: Estimated length, only used to divide the videos into shards.
    """

    id: str
    path: str
    seconds: float


def find_videos(videos: str | Path | Iterable[str | Path]) -> list[Video]:
    """Finds videos and returns them sorted by id.

    Args:
        videos: One of

            - a folder, of which the files named `*.mp4`, `*.webm`, ... are taken;
            - a glob pattern;
            - a list of paths;
            - a manifest: a `.jsonl` or `.parquet` file whose rows have `path` and optionally `id` and `duration` in
              seconds. Paths are relative to the manifest.

            Each can be a URL that fsspec reads. The default id of a video is its file name.

    Raises:
        ValueError: There are no videos, two have the same id, or a row of a manifest is invalid.
    """
    if not isinstance(videos, (str, Path)):
        found = [_video(str(path)) for path in videos]
    elif str(videos).lower().endswith(MANIFEST_SUFFIXES) and "*" not in str(videos):
        found = list(_manifest(str(videos)))
    else:
        found = [_video(path) for path in _listed(str(videos))]
    if not found:
        raise ValueError(
            f"No videos in {str(videos)!r}. Give a folder with files named *{', *'.join(VIDEO_SUFFIXES)}, a glob "
            f"pattern, a manifest ({', '.join(MANIFEST_SUFFIXES)}) or a list of paths."
        )
    found.sort(key=lambda video: video.id)
    for one, other in zip(found, found[1:]):
        if one.id == other.id:
            raise ValueError(
                f"{one.path} and {other.path} have the same id {one.id!r}. By default the id is the file name: rename "
                "one of them, or write a manifest with a column id."
            )
    return found


def is_remote(path: str) -> bool:
    """Whether a path is a URL that fsspec reads, and not the name of a local file."""
    return ("://" in path or "::" in path) and not Path(path).exists()


def without_secrets(path: str) -> str:
    """Removes user, password and query (which may contain a signature) from an http(s) URL."""
    if not path.startswith(("http://", "https://")):
        return path
    parts = urlsplit(path)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _video(path: str, id: str | None = None, seconds: float | None = None) -> Video:
    if seconds is None:
        try:
            seconds = UNKNOWN_SECONDS if is_remote(path) else Path(path).stat().st_size / BYTES_PER_SECOND
        except OSError:  # it will fail in a decoder, with its name
            seconds = 0.0
    return Video(posixpath.basename(without_secrets(path).rstrip("/")) if id is None else id, path, max(1.0, seconds))


def _listed(folder_or_pattern: str) -> list[str]:
    if is_remote(folder_or_pattern):
        system, root = fsspec.core.url_to_fs(folder_or_pattern)
        is_folder = system.isdir(root)
        names = system.ls(root, detail=False) if is_folder else system.glob(root)
        paths = [system.unstrip_protocol(name) for name in names]
    else:
        is_folder, is_file = Path(folder_or_pattern).is_dir(), Path(folder_or_pattern).is_file()
        if is_folder:
            paths = [str(path) for path in Path(folder_or_pattern).iterdir()]
        else:  # file names can contain pattern characters
            paths = [folder_or_pattern] if is_file else glob.glob(folder_or_pattern, recursive=True)
    if not is_folder:
        return paths
    videos = [path for path in paths if path.lower().endswith(VIDEO_SUFFIXES)]
    if len(videos) < len(paths):
        logger.info(f"{folder_or_pattern}: {len(paths) - len(videos)} files without a video suffix are skipped.")
    return videos


def _manifest(manifest: str) -> Iterator[Video]:
    folder = posixpath.dirname(manifest) if is_remote(manifest) else str(Path(manifest).parent)
    for where, row in _rows(manifest):
        path, id, duration = (row.get(name) for name in ("path", "id", "duration"))
        valid = isinstance(path, str) and path and (id is None or isinstance(id, str))
        if not valid or not (duration is None or (isinstance(duration, (int, float)) and duration >= 0)):
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
        if manifest.lower().endswith(".parquet"):
            import pyarrow.parquet as parquet

            table = parquet.ParquetFile(file)
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
            except ValueError as error:
                raise ValueError(f"{manifest}, line {number} is not JSON ({error}). Correct it.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{manifest}, line {number}: {row!r} must be an object with a path. Correct it.")
            yield f"line {number}", row
