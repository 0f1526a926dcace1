"""Several decoding children beside the model; their clips come as they are ready.

A child may hang, crash or be killed over one file; the video is reported as failed, a new child takes the next. Frames
cross pipes, a clip at a time, so that memory does not depend on how long a video is.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import fsspec
import numpy as np

from .videos import Video, is_remote

# The package without its __init__.py, which would import transformers: the child does not need it.
CHILD = """
import sys, types
package = types.ModuleType("vidlankd_hf")
package.__path__ = [{package!r}]
sys.modules["vidlankd_hf"] = package
from vidlankd_hf.extraction.child import main
main()
"""
VIDEOS_A_CHILD = 100  # then a new one takes over, so that what FFmpeg leaks counts against no later video
PIPE_BYTES = 2**20
MESSAGE_BYTES = 2**20  # at most, of an answer without its pixels
START_SECONDS, EXIT_SECONDS = 300.0, 10.0  # of a child, on a machine that is busy


@dataclass(frozen=True)
class Limits:
    """What one video may cost. Beyond it, it fails, and the run goes on.

    Args:
        stall_seconds: Without a new clip, while the run waits for one; and without a byte of what is fetched.
        video_seconds: In all, while the run waits; and to fetch it.
        memory_bytes: Address space of the decoding child (Linux), beside what its libraries take.
    """

    stall_seconds: float = 60.0
    video_seconds: float = 4 * 3600.0
    memory_bytes: int = 4 * 2**30


@dataclass(frozen=True)
class Clip:
    """`pixels` [frames, height, width, 3] uint8 of a stream of a video, shown around `time` (seconds)."""

    video: Video
    stream: int
    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Ended:
    """A video of which every clip has come."""

    video: Video
    duration: float


@dataclass(frozen=True)
class Failed:
    """A video that failed; clips that came before are to be forgotten."""

    video: Video
    reason: str  # unreadable, memory, stalled, too long, crashed, or not fetched
    detail: str


def decode_videos(
    videos: Sequence[Video], streams: list[dict[str, Any]], decoders: int, limits: Limits, ahead: int = 64
) -> Generator[Clip | Ended | Failed, None, None]:
    """Decodes videos in several children at once.

    The clips of one video come in order and before its end; those of several videos come mixed.

    Args:
        videos: To decode.
        streams: For each `{"rate", "clip_length", "pixels"}`; see `pixel_settings`.
        decoders: Children at work at the same time.
        limits: For each video.
        ahead: Clips that wait, decoded, for whoever reads.
    """
    ready: SimpleQueue = SimpleQueue()
    room = threading.Semaphore(ahead)
    stop = threading.Event()
    waiting, lock = iter(videos), threading.Lock()
    children: dict[int, DecodingChild] = {}

    def put(item: Any) -> bool:
        room.acquire()
        if not stop.is_set():
            ready.put(item)
        return not stop.is_set()

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                with lock:
                    video = next(waiting, None)
                if video is None:
                    break
                if number not in children or not children[number].is_fit():
                    children[number] = DecodingChild(streams, limits)
                    if stop.is_set():  # whoever stopped the run may have missed this one
                        children[number].kill()
                for item in _events(children[number], video):
                    if not put(item):
                        return
            put(None)
        except BaseException as error:  # to be raised where the clips are read
            put(error)
        finally:
            if number in children:
                children[number].kill()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(decoders)]
    for thread in threads:
        thread.start()
    at_work = len(threads)
    try:
        while at_work:
            item = ready.get()
            room.release()
            if item is None:
                at_work -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for child in list(children.values()):
            child.kill()
        room.release(len(threads) * 2)
        for thread in threads:
            thread.join()


def _events(child: "DecodingChild", video: Video) -> Iterator[Clip | Ended | Failed]:
    """What becomes of one video."""
    if not is_remote(video.path):
        yield from child.decode(video, video.path)
        return
    with tempfile.TemporaryDirectory(prefix="vidlankd-", ignore_cleanup_errors=True) as folder:
        local = os.path.join(folder, "video")
        error = _fetch(video.path, local, child.limits)
        if error is None:
            yield from child.decode(video, local)
        else:
            yield Failed(video, "not fetched", f"{video.path}: {type(error).__name__}: {error}")


def _fetch(address: str, local: str, limits: Limits) -> Exception | None:
    """Copies what is at an address to a file, and returns why it could not, every kind of storage in its own words.

    A storage that no longer answers keeps the thread that asked it; the run goes on without.
    """
    errors: list[Exception] = []

    def get() -> None:
        try:
            system, path = fsspec.core.url_to_fs(address)
            system.get_file(path, local)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=get, daemon=True)
    thread.start()
    began = grew = time.monotonic()
    size = 0
    while thread.is_alive():
        thread.join(min(1.0, limits.stall_seconds))
        now, before = time.monotonic(), size
        size = os.path.getsize(local) if os.path.exists(local) else 0
        grew = now if size != before else grew
        if thread.is_alive() and now - grew > limits.stall_seconds:
            return TimeoutError(f"no byte came for {limits.stall_seconds:g} s")
        if thread.is_alive() and now - began > limits.video_seconds:
            return TimeoutError(f"not fetched within {limits.video_seconds:g} s")
    return errors[0] if errors else None


class DecoderError(Exception):
    """The child hangs, has died or speaks nonsense."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class DecodingChild:
    """A process that runs :mod:`vidlankd_hf.extraction.child`."""

    def __init__(self, streams: list[dict[str, Any]], limits: Limits):
        self.limits, self.num_streams, self.served = limits, len(streams), 0
        self.waited = float("-inf")  # for what is no video, no limit in all
        self._log = tempfile.TemporaryFile()
        paths = os.pathsep.join(path for path in sys.path if path)
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(package=str(Path(__file__).parent.parent))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0, pipesize=PIPE_BYTES,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **one_thread},
        )  # fmt: skip
        self._poll = select.poll()
        self._poll.register(self._process.stdout, select.POLLIN)
        self._stall_seconds = START_SECONDS
        try:
            self._ask({"streams": streams, "memory_bytes": limits.memory_bytes})
            self._answer()
        except DecoderError as error:
            self.kill()
            raise RuntimeError(f"A decoding child does not start: {error.detail}") from error
        self._stall_seconds = limits.stall_seconds

    def is_fit(self) -> bool:
        """Whether it can take another video."""
        return self._process.poll() is None and self.served < VIDEOS_A_CHILD

    def kill(self) -> None:
        """Ends it, wherever it is."""
        self._process.kill()
        self._process.wait()

    def decode(self, video: Video, path: str) -> Iterator[Clip | Ended | Failed]:
        """Yields the clips of a video, then how it ended."""
        self.served, self.waited = self.served + 1, 0.0
        try:
            self._ask({"path": path})
            while True:
                message = self._answer()
                if "stream" in message:
                    if not 0 <= message["stream"] < self.num_streams or min(message["shape"]) < 1:
                        raise ValueError(f"a clip {message}")
                    pixels = self._read(prod(message["shape"]))
                    yield Clip(video, message["stream"], message["time"], pixels.reshape(message["shape"]))
                elif "duration" in message:
                    yield Ended(video, message["duration"])
                    return
                else:
                    raise DecoderError(message["reason"], message["detail"])
        except DecoderError as error:
            if error.reason != "unreadable":
                self.kill()
            yield Failed(video, error.reason, error.detail.replace(path, video.path))
        except (ValueError, KeyError, TypeError) as error:  # answers that make no sense
            self.kill()
            yield Failed(video, "crashed", f"{video.path}: the decoding child answers nonsense ({error!r})")

    def _ask(self, request: dict) -> None:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            self._gone()

    def _answer(self) -> dict:
        length = int.from_bytes(self._read(4), "little")
        if length > MESSAGE_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        return json.loads(bytes(self._read(length)))

    def _read(self, size: int) -> np.ndarray:
        if not 0 <= size <= self.limits.memory_bytes:
            raise ValueError(f"pixels of {size} bytes")
        content = np.empty(size, np.uint8)
        view = memoryview(content)
        while view:
            left = self.limits.video_seconds - self.waited
            began = time.monotonic()
            if not self._poll.poll(1000 * max(0.0, min(self._stall_seconds, left))):
                if left < self._stall_seconds:
                    raise DecoderError("too long", f"not decoded within {self.limits.video_seconds:g} s")
                raise DecoderError("stalled", f"nothing was decoded for {self._stall_seconds:g} s")
            self.waited += time.monotonic() - began
            count = self._process.stdout.readinto(view)  # type: ignore[attr-defined]
            if not count:
                self._gone()
            view = view[count:]
        return content

    def _gone(self) -> None:
        """The pipe is closed: says how the child ended."""
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.returncode
        text = self._stderr()
        if "MemoryError" in text:
            raise DecoderError("memory", f"more than {self.limits.memory_bytes:,} bytes are needed")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        raise DecoderError("crashed", f"the decoding child ended {how}. {text}".rstrip())

    def _stderr(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 1000))
        return self._log.read().decode(errors="replace").strip()
