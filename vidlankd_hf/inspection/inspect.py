"""Statistics, vocabulary growth and sample clips of captioned video, to inspect it before training."""

import random
import re
import weakref
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image

from ..data.captions import Caption
from ..data.features import FeatureStore
from ..data.pairing import Pairs
from ..extraction.decoders import Clip as DecodedClip
from ..extraction.decoders import DecodingChild, Failed, Limits
from ..extraction.videos import VIDEO_SUFFIXES, Video

CLIP_SECONDS = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300)  # lower edges of the histogram of clip lengths
FRAMES = {"rate": 1.0, "clip_length": 1, "pixels": {}}  # the stream of a child that only decodes single frames
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Clip(NamedTuple):
    """A window with evenly spaced frames. If they cannot be read, `frames` is empty and `problem` says why."""

    video: str
    start: float
    end: float
    text: str
    frames: list[Image.Image]
    problem: str | None


def summarize(store: FeatureStore, pairs: Pairs, dataset: Dataset) -> dict:
    """Computes statistics of videos, captions and windows.

    Args:
        store: The features.
        pairs: Output of [`pair_captions`].
        dataset: Output of [`load_video_text`].

    Returns:
        A JSON-serializable dict, with durations in seconds. `covered` is the fraction of the total video time in which
        there is a caption. `clip_lengths` is a histogram of the windows' durations; the last bin is open.
    """
    durations = np.array([store.duration(video) for video in store.video_ids])
    covered = sum(covered_seconds(captions) for captions in pairs.by_video.values())
    windows = dataset.with_format(None)
    lengths = np.array(windows["end"]) - np.array(windows["start"])
    counts, _ = np.histogram(lengths, [*CLIP_SECONDS, np.inf])
    words = [len(words_of(c.text)) for captions in pairs.by_video.values() for c in captions]
    return {
        "videos": {"count": len(store), "hours": durations.sum() / 3600, **_spread(durations)},
        "captions": {"count": len(words), "words": sum(words), "words_of_one": _spread(np.array(words))},
        "unpaired": {
            "captions_without_video": pairs.unpaired.counts["without_video"],
            "captions_outside_video": pairs.unpaired.counts["outside_video"],
            "videos_without_captions": pairs.unpaired.counts["videos_without_captions"],
        },
        "covered": covered / durations.sum(),
        "windows": {"count": len(windows), "videos": len(pairs.by_video), **_spread(lengths)},
        "clip_lengths": {"edges": list(CLIP_SECONDS), "counts": counts.tolist()},
    }


def words_of(text: str) -> list[str]:
    """Returns the lowercased words of a text: letters and digits, with apostrophes inside."""
    return _WORD.findall(text.lower())


def vocabulary_growth(texts: Sequence[str], seed: int = 0, max_words: int = 10_000_000) -> list[tuple[int, int]]:
    """Counts the distinct words among the first n words, for n = 1, 2, 5, 10, ... and for all words.

    Args:
        texts: The texts, which are read in random order, since neighboring texts are similar.
        seed: Seed of the order.
        max_words: Maximum number of words to read.

    Returns:
        Pairs of (words read, distinct words), both increasing.
    """
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    marks = iter(sorted(m * 10**e for e in range(12) for m in (1, 2, 5)))
    mark, count, seen, growth = next(marks), 0, set(), []
    words = (word for i in order for word in words_of(texts[i]))
    for count, word in enumerate(islice(words, max_words), 1):
        seen.add(word)
        if count == mark:
            growth.append((count, len(seen)))
            mark = next(marks)
    if count and (not growth or growth[-1][0] < count):
        growth.append((count, len(seen)))
    return growth


def vocabulary_size_at(growth: Sequence[tuple[int, int]], words: int) -> float:
    """Returns the number of distinct words among the first `words`, by log-log interpolation of a growth curve.

    Args:
        growth: Output of [`vocabulary_growth`].
        words: Number of words.
    """
    counts, sizes = np.log(np.array(growth, float)).T
    return float(np.exp(np.interp(np.log(words), counts, sizes)))


def sample_clips(
    dataset: Dataset, videos: str | Path, count: int = 16, num_frames: int = 4, seed: int = 0
) -> list[Clip]:
    """Samples random windows of a data set and reads frames from their clips.

    Args:
        dataset: Output of [`load_video_text`].
        videos: Folder with the video files, which is searched recursively for the video ids of the data set.
        count: Maximum number of windows.
        num_frames: Number of evenly spaced frames per window.
        seed: Seed of the sample.

    Returns:
        The windows, in the order of the data set.

    Raises:
        ValueError: The folder does not exist.
    """
    files = find_videos(videos)
    rows = dataset.with_format(None)
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    reader, windows = FrameReader(), [rows[i] for i in chosen]
    return [read_clip(row, files.get(row["video"]), segment_midpoints(row, num_frames), reader) for row in windows]


def find_videos(folder: str | Path) -> dict[str, Path]:
    """Maps video ids to the files in a folder and its subfolders.

    An id is a relative path or a file name. For features that came without files, an id without a suffix finds the
    video of that name. A name that several files share is left out.

    Raises:
        ValueError: The folder does not exist.
    """
    if not Path(folder).is_dir():
        raise ValueError(
            f"the folder of videos {folder} does not exist: give the folder that features were extracted from"
        )
    root = Path(folder).resolve()
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    stems = _unique((path.stem, path) for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
    names = _unique((path.name, path) for path in files)
    taken = {path.name for path in files}
    paths = {path.relative_to(root).as_posix(): path for path in files}
    return {stem: path for stem, path in stems.items() if stem not in taken} | names | paths


def _unique(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Only the files whose name is unique."""
    found: dict[str, list[Path]] = {}
    for name, path in named:
        found.setdefault(name, []).append(path)
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}


def segment_midpoints(row: dict, count: int) -> list[float]:
    """Divides a window into `count` equal parts and returns their middles in seconds."""
    return (row["start"] + (np.arange(count) + 0.5) * (row["end"] - row["start"]) / count).tolist()


class FrameReader:
    """Reads single frames of video files in a decoding child process, which ends with this object."""

    def __init__(self):
        self._child: DecodingChild | None = None

    def frames_at(self, path: Path, times: Sequence[float], size: tuple[int, int] = (320, 240)) -> list[Image.Image]:
        """Returns the frames on screen at some times.

        Args:
            path: The video file.
            times: Seconds from the start of the video.
            size: Maximum width and height of the frames.

        Raises:
            ValueError: The file cannot be decoded, or has no frame at one of the times.
        """
        if self._child is None or not self._child.is_usable():
            if self._child is not None:
                self._child.kill()
            self._child = DecodingChild([FRAMES], Limits())
            weakref.finalize(self, self._child.kill)
        frames = []
        for event in self._child.decode(Video(path.name, str(path), 0.0), str(path), times=list(times), size=size):
            if isinstance(event, Failed):
                raise ValueError(event.detail.removeprefix(f"{path}: "))
            if isinstance(event, DecodedClip):
                frames.append(Image.fromarray(event.pixels[0]))
        return frames


def read_clip(row: dict, path: Path | None, times: Sequence[float], reader: FrameReader) -> Clip:
    """Reads the frames of a window from its video file.

    Args:
        row: A row of the data set.
        path: Its video file, or `None` if there is none.
        times: Seconds at which to take frames.
        reader: Decodes the file.
    """
    frames, problem = [], None if path else "the folder of videos does not have exactly one file of this name"
    try:
        frames = reader.frames_at(path, times) if path else []
    except ValueError as error:
        problem = f"cannot be read: {error}"
    return Clip(row["video"], row["start"], row["end"], row["text"], frames, problem)


def covered_seconds(captions: Iterable[Caption]) -> float:
    """Returns the seconds that are covered by at least one of the captions, which are sorted by time."""
    total, reached = 0.0, 0.0
    for caption in captions:
        total += max(0.0, caption.end - max(reached, caption.start))
        reached = max(reached, caption.end)
    return total


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": values.min().item(), "median": float(np.median(values)), "most": values.max().item()}
