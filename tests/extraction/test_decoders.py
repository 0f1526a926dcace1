"""A file that makes a decoding child hang, crash or run out of memory does not stop the run."""

import os
import subprocess
import sys

import psutil
import pytest
from video_files import write_grey_video, write_large

from vidlankd_hf.extraction import decoders as decoders_module
from vidlankd_hf.extraction.decoders import Clip, Ended, Failed, Limits, decode_videos
from vidlankd_hf.extraction.videos import Video

SMALL = [{"rate": 1.0, "clip_length": 1, "pixels": {"size": [8, 8], "resample": 2, "crop": None}}]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_listed(tmp_path):
    path = write_grey_video(tmp_path / "video.mp4", [0, 100])
    path.chmod(0)
    (event,) = decode_videos([Video("v", str(path), 1.0)], SMALL, 1, Limits())
    assert isinstance(event, Failed) and "Permission denied" in event.detail


def child_that(does):
    """Returns the program of a decoding child that misbehaves for files with "bad" in their names."""
    patch = f"""
import os, signal, time
import vidlankd_hf.extraction.child as child
answer = child.answer
def patched(request, streams, send):
    if "bad" in request["path"]:
        {does}
    answer(request, streams, send)
child.answer = patched
main()
"""
    return decoders_module.CHILD.replace("\nmain()\n", patch.replace("{", "{{").replace("}", "}}"))


@pytest.mark.parametrize(
    "does, reason, detail",
    [
        ("time.sleep(1000)", "stalled", "nothing was decoded for 5 s"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "SIGKILL"),
        ("os._exit(3)", "crashed", "code 3"),
        ("raise RuntimeError('what no one thought of')", "crashed", "what no one thought of"),
        ("bytes(2**40)", "memory", ""),
        ("send({'odd': 1})", "crashed", "invalid answer"),
        ("send({'stream': 0, 'time': 0, 'shape': [2**50, 1, 1, 3]})", "crashed", "invalid answer"),
        ("send({'stream': 7, 'time': 0, 'shape': [1, 1, 1, 3]}, bytes(3))", "crashed", "invalid answer"),
    ],
    ids=[
        "hangs",
        "segmentation fault",
        "killed",
        "exits",
        "raises",
        "memory",
        "odd answer",
        "too much",
        "unknown stream",
    ],
)
def test_failing_child_only_fails_one_video(tmp_path, monkeypatch, does, reason, detail):
    monkeypatch.setattr(decoders_module, "CHILD", child_that(does))
    names = ["0.mp4", "1bad.mp4", "2.mp4", "3bad.mp4", "4.mp4"]
    found = [Video(name, str(write_grey_video(tmp_path / name, [0, 500, 1000, 1500])), 1.0) for name in names]
    events = list(decode_videos(found, SMALL, 1, Limits(stall_seconds=5 if reason == "stalled" else 60)))
    ends = [event for event in events if not isinstance(event, Clip)]
    assert [(event.video.id, type(event)) for event in ends] == [
        (name, Failed if "bad" in name else Ended) for name in names
    ]
    for event in ends[1::2]:
        assert event.reason == reason and detail in event.detail
    assert [event.video.id for event in events if isinstance(event, Clip)] == [
        name for name in names if "bad" not in name for _ in range(2)
    ]


def test_file_without_data_is_given_up(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (event,) = decode_videos([Video("v", str(tmp_path / "pipe.mp4"), 1.0)], SMALL, 1, Limits(stall_seconds=2))
    assert event.reason == "stalled"


def test_video_that_takes_too_long_in_total_is_given_up(tmp_path):
    """One frame shown for 50 minutes gives three million frames at 1,000 per second, and none of them stalls."""
    path = write_grey_video(tmp_path / "long.mkv", [0, 3 * 10**6])
    streams = [{"rate": 1000.0, "clip_length": 1, "pixels": {"size": [224, 224], "resample": 2, "crop": None}}]
    *clips, event = decode_videos([Video("v", str(path), 1.0)], streams, 1, Limits(video_seconds=0.5), ahead=1)
    assert (event.reason, event.detail) == ("too long", "not decoded within 0.5 s") and len(clips) > 0


def test_frames_beyond_the_memory_limit_only_fail_their_video(tmp_path):
    write_large(tmp_path / "large.mkv")
    found = [Video("large", str(tmp_path / "large.mkv"), 1.0)]
    found.append(Video("small", str(write_grey_video(tmp_path / "small.mp4", [0])), 1.0))
    *_, large, clip, small = decode_videos(found, SMALL, 1, Limits(memory_bytes=300 * 2**20))
    assert (large.reason, large.video.id) == ("memory", "large") and isinstance(small, Ended)


@pytest.mark.parametrize("resample", [1, 2])
def test_resizing_beyond_the_memory_limit_only_fails_its_video(tmp_path, resample):
    path = write_grey_video(tmp_path / "video.mp4", [0])
    streams = [{**SMALL[0], "pixels": {"size": [40_000, 40_000], "resample": resample, "crop": None}}]
    (event,) = decode_videos([Video("v", str(path), 1.0)], streams, 1, Limits(memory_bytes=2**30))
    assert event.reason == "memory"


def test_inherited_memory_limit_is_not_exceeded(tmp_path):
    path = write_grey_video(tmp_path / "video.mp4", [0])
    code = f"""if True:
        import resource
        from vidlankd_hf.extraction.decoders import Ended, Limits, decode_videos
        from vidlankd_hf.extraction.videos import Video
        resource.setrlimit(resource.RLIMIT_AS, (2**38,) * 2)
        *_, event = decode_videos([Video("v", {str(path)!r}, 1.0)], {SMALL!r}, 1, Limits(memory_bytes=2**40))
        assert isinstance(event, Ended), event
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stopping_early_leaves_no_process(tmp_path):
    found = [Video(str(i), str(write_grey_video(tmp_path / f"{i}.mp4", range(0, 2000, 200))), 1.0) for i in range(4)]
    streams = [{**SMALL[0], "rate": 24.0}]
    others = children()  # such as a resource tracker of another test
    events = decode_videos(found, streams, 2, Limits(), ahead=2)
    next(events)
    started = children() - others
    assert len(started) >= 1
    events.close()
    assert not started & children()


def children() -> set[int]:
    """Returns the ids of the running child processes."""
    return {child.pid for child in psutil.Process().children()}
