"""Decodes videos in child processes, in parallel with the model.

If a child hangs, crashes or is killed, its video is reported as failed and a new child takes the next one. Clips are
sent through pipes one at a time, so memory does not depend on the length of a video.
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
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import fsspec
import numpy as np
from fsspec.callbacks import Callback

from ..utils.addresses import hide_secrets, public_address
from ..utils.io import temporary_dir
from .container import REASONS
from .limits import Limits
from .packed import copy_out, split_packed
from .videos import Video, is_remote

# Skips the package's __init__.py, since importing transformers would slow down the start of a child.
CHILD = """
import sys, types
package = types.ModuleType("vidlankd_hf")
package.__path__ = [{package!r}]
sys.modules["vidlankd_hf"] = package
from vidlankd_hf.extraction.child import main
main()
"""
# Then a new child takes over, so that memory leaks of FFmpeg do not add up. Not sooner, because a child imports torch.
VIDEOS_PER_CHILD = 1000
PIPE_BYTES = 2**20
MAX_MESSAGE_BYTES = 2**20  # of an answer without its pixels
START_SECONDS, EXIT_SECONDS = 300.0, 10.0  # timeouts for starting and ending a child, generous for busy machines


class Clip(NamedTuple):
    """A decoded clip.

    Args:
        video: The video it is from.
        stream: Index of its stream.
        time: Seconds from the start of the video to the middle of the clip.
        pixels: `[frames, height, width, 3]` uint8.
    """

    video: Video
    stream: int
    time: float
    pixels: np.ndarray


class Ended(NamedTuple):
    """A video is completely decoded; `duration` is in seconds, `notes` are those of its [`VideoReader`]."""

    video: Video
    duration: float
    notes: Sequence[str] = ()


class Failed(NamedTuple):
    """A video failed. Its clips that were yielded before must be discarded."""

    video: Video
    reason: str  # that of a VideoError, or memory, stalled, too long, crashed or not fetched
    detail: str


def decode_videos(
    videos: Sequence[Video], streams: list[dict[str, Any]], decoders: int, limits: Limits, ahead: int = 64
) -> Generator[Clip | Ended | Failed, None, None]:
    """Decodes videos in several child processes.

    The clips of one video are yielded in order, followed by its [`Ended`] or [`Failed`]. Clips of several videos are
    interleaved.

    Args:
        videos: Videos to decode.
        streams: `{"rate", "clip_length", "pixels"}` for each stream; `pixels` is the output of [`pixel_settings`].
        decoders: Number of children.
        limits: Limits for each video.
        ahead: Maximum number of decoded clips that wait to be read.
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
                if number not in children or not children[number].is_usable():
                    children[number] = DecodingChild(streams, limits)
                    if stop.is_set():  # the loop that kills the children may have missed this one
                        children[number].kill()
                for item in _events(children[number], video):
                    if not put(item):
                        return
            put(None)
        except BaseException as error:  # raised again where the clips are read
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
    """Yields the clips of one video and how it ended; a remote or packed video is copied to a local file first."""
    packed = split_packed(video.path)
    if not packed and not is_remote(video.path):
        yield from child.decode(video, video.path)
        return
    with temporary_dir() as folder:
        local = str(folder / "video")
        error = (copy_out if packed else _fetch)(video.path, local, child.limits)
        if error is None:
            yield from child.decode(video, local)
        elif packed:
            yield Failed(video, "unreadable", str(error))
        else:
            problem = hide_secrets(f"{video.path}: {type(error).__name__}: {error}", video.path)
            yield Failed(video, "not fetched", problem)


def _fetch(address: str, local: str, limits: Limits) -> Exception | None:
    """Downloads a file and returns the error, if any. Each kind of storage raises different errors.

    A storage that does not answer blocks the download's thread, but not the run.
    """
    errors: list[Exception] = []
    given_up = threading.Event()

    class Watched(Callback):
        def relative_update(self, inc: int = 1) -> None:
            if given_up.is_set():
                raise InterruptedError("given up")

    def get() -> None:
        try:
            system, path = fsspec.core.url_to_fs(address)
            system.get_file(path, local, callback=Watched())
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
        problem: Exception | None = None
        if size > limits.download_bytes:
            problem = OSError(f"it is larger than {limits.download_bytes:,} bytes")
        elif thread.is_alive() and now - grew > limits.stall_seconds:
            problem = TimeoutError(f"no data received for {limits.stall_seconds:g} s")
        elif thread.is_alive() and now - began > limits.video_seconds:
            problem = TimeoutError(f"not downloaded within {limits.video_seconds:g} s")
        if problem is not None:
            given_up.set()  # ends the thread with its next piece of data
            return problem
    return errors[0] if errors else None


class DecoderError(Exception):
    """The decoding child hangs, has ended, or reports an error; `args` are reason and detail, as in [`Failed`]."""


class DecodingChild:
    """A child process that runs [`vidlankd_hf.extraction.child`].

    Args:
        streams: As in [`decode_videos`].
        limits: Limits for each video.

    Raises:
        RuntimeError: The process does not start.
    """

    def __init__(self, streams: list[dict[str, Any]], limits: Limits):
        self.limits, self.num_streams, self.served = limits, len(streams), 0
        self.waited = float("-inf")  # no total time limit before the first video
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
            raise RuntimeError(f"The decoding child process does not start: {error.args[1]}") from error
        self._stall_seconds = limits.stall_seconds

    def is_usable(self) -> bool:
        """Whether the child can take another video."""
        return self._process.poll() is None and self.served < VIDEOS_PER_CHILD

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.wait()

    def decode(self, video: Video, path: str, **frames: Any) -> Iterator[Clip | Ended | Failed]:
        """Decodes one video.

        Args:
            video: The video, as it appears in what is yielded.
            path: The local file.
            frames: `times` (seconds) and `size` (at most), to decode single frames instead; or `probe=True`, to find
                out only whether the file is a video.

        Yields:
            [`Clip`]s, then [`Ended`] or [`Failed`].
        """
        self.served, self.waited = self.served + 1, 0.0
        try:
            self._ask({"path": path, **frames})
            while True:
                message = self._answer()
                if "stream" in message:
                    if not 0 <= message["stream"] < self.num_streams or min(message["shape"]) < 1:
                        raise ValueError(f"invalid clip {message}")
                    pixels = self._read(prod(message["shape"]))
                    yield Clip(video, message["stream"], message["time"], pixels.reshape(message["shape"]))
                elif "duration" in message:
                    yield Ended(video, message["duration"], message["notes"])
                    return
                else:
                    raise DecoderError(message["reason"], message["detail"])
        except DecoderError as error:
            reason, detail = error.args
            if reason not in REASONS:
                self.kill()
            yield Failed(video, reason, detail.replace(path, public_address(video.path)))
        except (ValueError, KeyError, TypeError) as error:
            self.kill()
            yield Failed(video, "crashed", f"{public_address(video.path)}: invalid answer of the child ({error!r})")

    def _ask(self, request: dict) -> None:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            self._raise_exit()

    def _answer(self) -> dict:
        length = int.from_bytes(self._read(4), "little")
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(f"answer of {length} bytes")
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
                self._raise_exit()
            view = view[count:]
        return content

    def _raise_exit(self) -> None:
        """Raises an error that says how the child ended, once its pipe is closed."""
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.returncode
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 1000))
        text = self._log.read().decode(errors="replace").strip()
        if "MemoryError" in text:
            raise DecoderError("memory", f"more than {self.limits.memory_bytes:,} bytes of memory are needed")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        raise DecoderError("crashed", f"the decoding child ended {how}. {text}".rstrip())
