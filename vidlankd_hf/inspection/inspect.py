"""A look at captioned video before training on it: numbers, vocabulary, and the clips that windows get."""

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from datasets import Dataset
from PIL import Image

from ..data.captions import Caption
from ..data.features import FeatureStore
from ..data.pairing import Pairs

CLIP_SECONDS = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300)  # lower edges of the histogram of clip lengths
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Clip(NamedTuple):
    """A window to be shown. `frames` are evenly spaced over it; where there are none, `problem` says why."""

    video: str
    start: float
    end: float
    text: str
    frames: list[Image.Image]
    problem: str | None


def summarize(store: FeatureStore, pairs: Pairs, dataset: Dataset) -> dict:
    """Numbers of videos, captions and windows as a JSON-able dict; durations in seconds.

    `covered` is the share of all videos' time in which some caption is. `clip_lengths` counts the windows by the
    duration of their clip, from each edge to the next, the last one open.

    Args:
        store: The features.
        pairs: What [`pair_captions`] found.
        dataset: What [`load_video_text`] made of it.
    """
    durations = np.array([store.duration(video) for video in store.video_ids])
    covered = sum(_covered(captions) for captions in pairs.by_video.values())
    windows = dataset.with_format(None)
    lengths = np.array(windows["end"]) - np.array(windows["start"])
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
        "clip_lengths": {
            "edges": list(CLIP_SECONDS),
            "counts": np.histogram(lengths, [*CLIP_SECONDS, np.inf])[0].tolist(),
        },
    }


def words_of(text: str) -> list[str]:
    """Words in lower case: runs of letters and digits, with apostrophes inside."""
    return _WORD.findall(text.lower())


def vocabulary_growth(texts: Sequence[str], seed: int = 0, max_words: int = 10_000_000) -> list[tuple[int, int]]:
    """How many different words there are among the first n, at n = 1, 2, 5, 10, ... and at the end.

    Texts are read in random order, since neighbours are alike, up to `max_words` words.

    Returns:
        Pairs of (words read, different words), both increasing.
    """
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    marks = iter(sorted(m * 10**e for e in range(12) for m in (1, 2, 5)))
    mark, count, seen, growth = next(marks), 0, set(), []
    for i in order:
        for word in words_of(texts[i]):
            seen.add(word)
            count += 1
            if count == mark:
                growth.append((count, len(seen)))
                mark = next(marks)
            if count == max_words:
                break
        if count == max_words:
            break
    if count and (not growth or growth[-1][0] < count):
        growth.append((count, len(seen)))
    return growth


def size_at(growth: Sequence[tuple[int, int]], words: int) -> float:
    """Different words among so many, between the marks of [`vocabulary_growth`] by a straight line in logarithms."""
    counts, sizes = np.log(np.array(growth, float)).T
    return float(np.exp(np.interp(np.log(words), counts, sizes)))


def sample_clips(
    dataset: Dataset, videos: str | Path, count: int = 16, num_frames: int = 4, seed: int = 0
) -> list[Clip]:
    """Random windows of a data set with the frames of their clips, in the order of the data set.

    Args:
        dataset: What [`load_video_text`] gives.
        videos: Folder of the video files, searched with its subfolders by the ids in the index.
        count: Of windows, at most.
        num_frames: Of each clip, at the middles of as many equal parts.
        seed: Of the choice.

    Raises:
        ValueError: No such folder.
    """
    files = find_videos(videos)
    rows = dataset.with_format(None)
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    return [read_clip(rows[i], files.get(rows[i]["video"]), middles_of(rows[i], num_frames)) for i in chosen]


def find_videos(folder: str | Path) -> dict[str, Path]:
    """The files below a folder of videos by every name that an index may have for them.

    Raises:
        ValueError: No such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"the folder of videos {folder} does not exist: give the one the features are of")
    root = Path(folder).resolve()
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            for name in (path.relative_to(root).as_posix(), path.name, path.stem):
                files.setdefault(name, path)
    return files


def middles_of(row: dict, count: int) -> list[float]:
    """Seconds at the middles of `count` equal parts of a window."""
    return (row["start"] + (np.arange(count) + 0.5) * (row["end"] - row["start"]) / count).tolist()


def read_clip(row: dict, path: Path | None, times: Sequence[float]) -> Clip:
    """A window with the pictures of its video file at `times`; where there is none, it says why."""
    frames, problem = [], None
    if path is None:
        problem = "no such file in the folder of videos"
    else:
        try:
            frames = frames_at(path, times)
        except (ValueError, OSError, av.error.FFmpegError) as error:
            problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return Clip(row["video"], row["start"], row["end"], row["text"], frames, problem)


def frames_at(path: Path, times: Sequence[float], size: tuple[int, int] = (320, 240)) -> list[Image.Image]:
    """The pictures on screen at times in seconds, upright and within `size`; seeks instead of reading all.

    Raises:
        ValueError: No video in the file, or no frame at such a time.
        av.error.FFmpegError: It cannot be decoded.
    """
    frames = []
    for time in times:
        try:
            frame = _shown_at(path, time, from_start=False)
        except (ValueError, av.error.FFmpegError):  # some files mark frames as key frames that are none
            frame = _shown_at(path, time, from_start=True)
        frame.thumbnail(size)
        frames.append(frame)
    return frames


def _shown_at(path: Path, time: float, from_start: bool) -> Image.Image:
    with av.open(str(path), metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ValueError("it holds no video")
        stream = container.streams.video[0]
        begin = float((stream.start_time or 0) * stream.time_base)
        if not from_start:
            container.seek(int((begin + time) / stream.time_base), stream=stream, backward=True)
        shown = None
        for frame in container.decode(stream):
            if frame.time is not None and frame.time - begin > time:
                # Before the first frame of a file that one is shown; after a seek it would be another time's.
                shown = frame if shown is None and from_start else shown
                break
            shown = frame
        if shown is None:
            raise ValueError(f"it has no frame at {time:.2f} s")
        return shown.to_image().rotate(shown.rotation, expand=True)


def _covered(captions: Iterable[Caption]) -> float:
    """Seconds in which at least one of the captions, in the order of time, is."""
    total, reached = 0.0, 0.0
    for caption in captions:
        total += max(0.0, caption.end - max(reached, caption.start))
        reached = max(reached, caption.end)
    return total


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": values.min().item(), "median": float(np.median(values)), "most": values.max().item()}
