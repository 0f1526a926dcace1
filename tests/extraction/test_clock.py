"""Pictures and captions have one clock, that of a player, also where timestamps jump."""

import numpy as np
import pytest
from video_files import GREY_LEVELS, write_grey_video, write_video_file

from vidlankd_hf.extraction.container import VideoError
from vidlankd_hf.extraction.decode import VideoReader


def test_pictures_that_start_after_the_sound_keep_their_times(tmp_path):
    path = write_video_file(tmp_path / "late.mp4", sound=9, first=5)
    reader = VideoReader(path)
    samples = [(time, image.mean()) for _, time, image in reader.sample([1.0])]
    assert [time for time, _ in samples] == [5.0, 6.0, 7.0, 8.0] and reader.duration == pytest.approx(9.0, abs=0.1)
    assert [level for _, level in samples] == pytest.approx([40, 76, 112, 148], abs=6)
    before, at_7 = reader.frames_at([2.0, 7.0])
    assert before.mean() == pytest.approx(40, abs=6), "a player shows the first picture"
    assert at_7.mean() == pytest.approx(112, abs=6)


def test_pictures_that_start_with_the_sound_but_for_a_few_milliseconds_start_at_0(tmp_path):
    """The sound of many encoders begins with silence before the first picture."""
    path = write_video_file(tmp_path / "a.mkv", sound=4)
    assert [time for _, time, _ in VideoReader(path).sample([1.0])] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("suffix, codec", [("ts", "libx264"), ("mpg", "mpeg2video")])
def test_joined_recordings_are_read_one_after_another(tmp_path, suffix, codec):
    rate = 25 if suffix == "mpg" else 12
    one = write_video_file(tmp_path / f"one.{suffix}", codec=codec, rate=rate, frames=4 * rate)
    alone = VideoReader(one)
    levels = [image.mean() for _, _, image in alone.sample([1.0])]
    path = tmp_path / f"two.{suffix}"
    path.write_bytes(one.read_bytes() * 2)
    reader = VideoReader(path)
    samples = [(time, image.mean()) for _, time, image in reader.sample([1.0])]
    assert reader.duration == pytest.approx(2 * alone.duration, abs=0.1)
    assert [time for time, _ in samples] == list(range(8))
    assert [level for _, level in samples] == pytest.approx(2 * levels, abs=6)
    assert any("joined recordings" in note for note in reader.notes)
    (image,) = reader.frames_at([5.5])
    assert image.mean() == pytest.approx(np.mean([levels[1], levels[2]]), abs=25), "of the second recording"


def test_timestamps_that_jump_back_elsewhere_are_an_error_with_the_place(tmp_path, monkeypatch):
    path = write_grey_video(tmp_path / "a.mkv", range(0, 2000, 200))
    frames = VideoReader._timed_frames

    class Container:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, stream):
            for number, frame in enumerate(self.container.decode(stream)):
                frame.pts -= 1000 if number >= 7 else 0
                yield frame

    monkeypatch.setattr(
        VideoReader, "_timed_frames", lambda self, container, stream: frames(self, Container(container), stream)
    )
    with pytest.raises(VideoError, match="jump back from 1.20 s to 0.40 s") as error:
        list(VideoReader(path).sample([1.0]))
    assert error.value.reason == "wrong times"


@pytest.mark.parametrize("name, gap", [("a.mkv", 5000), ("a.ts", 100)])
def test_a_jump_forward_beyond_the_limit_is_an_error_with_the_place(tmp_path, name, gap):
    stamps = [0, 200, 400, 1000 * gap, 1000 * gap + 200]
    path = write_grey_video(tmp_path / name, stamps)
    with pytest.raises(VideoError, match=r"one frame lasts [\d.]+ s, so .*from 0.40 s") as error:
        list(VideoReader(path).sample([1.0]))
    assert error.value.reason == "wrong times"


def test_a_still_picture_of_some_minutes_is_no_jump(tmp_path):
    path = write_grey_video(tmp_path / "slides.mkv", [0, 300_000, 300_200])
    levels = [int(np.median(image[40:])) for _, _, image in VideoReader(path).sample([0.01])]
    assert levels == pytest.approx([GREY_LEVELS[0]] * 3 + [GREY_LEVELS[1]], abs=3), "at 0, 100, 200 and 300 s"


def test_a_late_and_short_video_has_a_picture_for_every_rate(tmp_path):
    path = write_video_file(tmp_path / "late.mp4", sound=7, first=5, frames=12)
    assert [(i, time) for i, time, _ in VideoReader(path).sample([1.0, 0.1])][0] == (0, 5.0)
    assert {i for i, _, _ in VideoReader(path).sample([1.0, 0.1])} == {0, 1}
