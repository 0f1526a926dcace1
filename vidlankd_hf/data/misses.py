"""Videos and captions that a conversion leaves out: listed, counted, and limited."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from .captions import Caption


class Misses:
    """Writes and counts what is left out.

    Args:
        file: A line of JSON for each video or caption.
        num_videos: Number of videos that have features or captions.
    """

    def __init__(self, file: BinaryIO, num_videos: int = 0):
        self.file, self.num_videos = file, num_videos
        self.videos: set[str] = set()
        self.counts: Counter = Counter()
        self.last = ""

    def add(self, video: str, reason: str, detail: str = "") -> None:
        """Adds a video that is left out."""
        self._write(video, reason, detail)
        self.num_videos += reason == "captions without features"
        self.videos.add(video)
        self.last = f"{video!r}: {reason}{detail and ', '}{detail}"

    def add_caption(self, caption: Caption, duration: float) -> None:
        """Adds a caption that is left out of a video that is kept."""
        detail = f"{caption.start:g} to {caption.end:g} s of {duration:g} s: {caption.text[:200]}"
        self._write(caption.video, "caption outside the video", detail)

    def _write(self, video: str, reason: str, detail: str) -> None:
        self.counts[reason] += 1
        self.file.write((json.dumps({"video": video, "reason": reason, "detail": detail}) + "\n").encode())

    def result(self) -> dict[str, Any]:
        """What [`join`] takes, as values for JSON."""
        return {"missing": sorted(self.videos), "misses": self.counts, "last": self.last}

    def join(self, lines: bytes, result: dict[str, Any]) -> None:
        """Adds the lines and the [`result`] of a task."""
        self.file.write(lines)
        self.file.flush()
        self.num_videos += result.get("num_videos", 0)
        self.videos.update(result["missing"])
        self.counts.update(result["misses"])
        self.last = result["last"] or self.last

    def few(self, max_missing: float) -> bool:
        """Whether as few videos are missing as allowed."""
        return len(self.videos) <= max_missing * self.num_videos

    def check(self, max_missing: float, path: Path) -> None:
        """Raises a `ValueError` if more videos are missing than allowed; `path` is their list."""
        if not self.few(max_missing):
            raise ValueError(
                f"{len(self.videos)} of {self.num_videos} videos cannot be converted, more than max_missing "
                f"({max_missing:g}) allows; the last is {self.last}. {path} lists them: add what is missing, or raise "
                "max_missing"
            )
