"""A file counts as a video only if it is one, and only if all of it is there."""

import av
import numpy as np
import pytest
from video_files import write_sound, write_video_file

from vidlankd_hf.extraction.container import VideoError
from vidlankd_hf.extraction.decode import VideoReader

CONTAINERS = {
    "fast.mp4": {"options": {"movflags": "faststart"}, "sound": 4},
    "plain.mov": {"sound": 4},
    "fragmented.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}, "sound": 4},
    "a.mkv": {"sound": 4},
    "a.webm": {"codec": "libvpx"},
    "a.flv": {},
    "a.avi": {"codec": "mpeg4"},
    "a.mxf": {"codec": "mpeg2video", "rate": 25, "frames": 100},
    "a.ivf": {"codec": "libvpx"},
}


def decode(path):
    reader = VideoReader(path)
    times = [time for _, time, _ in reader.sample([4.0])]
    return reader, times


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_that_lacks_its_end_is_truncated_and_both_figures_are_said(tmp_path, name):
    path = write_video_file(tmp_path / name, **CONTAINERS[name])
    reader, times = decode(path)
    assert reader.duration == pytest.approx(4.0, abs=0.2) and len(times) == 16
    cut(path, 0.6)
    with pytest.raises(VideoError, match=str(path)) as error:
        decode(path)
    assert error.value.reason == "truncated"
    figures = [figure for figure in str(error.value).replace(str(path), "").split() if figure[:1].isdigit()]
    assert len(figures) >= 2, error.value


def test_a_short_cut_is_seen_where_the_file_states_the_size_of_its_parts(tmp_path):
    """A twentieth is within the rounding of headers, but an mp4 file states how many bytes it has."""
    path = cut(write_video_file(tmp_path / "a.mp4", options={"movflags": "faststart"}), 0.95)
    with pytest.raises(VideoError) as error:
        decode(path)
    assert error.value.reason == "truncated"


def test_recordings_whose_header_has_no_length_pass(tmp_path):
    live = write_video_file(tmp_path / "live.mkv", options={"live": "1"})
    with av.open(str(live)) as container:
        assert container.duration is None
    assert decode(live)[0].duration == pytest.approx(4.0, abs=0.1)
    assert decode(cut(live, 0.6))[0].duration < 3.0, "nothing says that there was more"
    assert decode(cut(write_video_file(tmp_path / "a.ts"), 0.6))[0].duration < 3.0


@pytest.mark.parametrize("name", ["a.flv", "a.mkv", "a.mp4"])
def test_sound_that_is_longer_than_the_pictures_is_no_loss(tmp_path, name):
    reader, _ = decode(write_video_file(tmp_path / name, sound=9))
    assert reader.duration == pytest.approx(4.0, abs=0.2)


def write_cover(container):
    stream = container.add_stream("mjpeg", rate=1)
    stream.width = stream.height = 128
    stream.pix_fmt, stream.disposition = "yuvj420p", av.stream.Disposition.attached_pic.value
    return stream, av.VideoFrame.from_ndarray(np.full((128, 128, 3), 200, np.uint8), format="rgb24")


@pytest.mark.parametrize("with_video", [True, False])
def test_a_cover_is_no_video(tmp_path, with_video):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        voice = container.add_stream("aac", rate=16_000, layout="mono")
        cover, picture = write_cover(container)
        if with_video:
            stream = container.add_stream("libx264", rate=12)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(cover.encode(picture))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        container.mux(voice.encode(silence))
        for level in range(24) if with_video else ():
            grey = np.full((48, 64, 3), 10 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for stream in container.streams:
            container.mux(stream.encode())
    with av.open(str(path)) as container:
        dispositions = [stream.disposition for stream in container.streams.video]
        assert any(flags & av.stream.Disposition.attached_pic for flags in dispositions), "as the test means it"
    if not with_video:
        with pytest.raises(VideoError, match="attached picture.*audio") as error:
            VideoReader(path)
        assert error.value.reason == "no video"
        return
    reader = VideoReader(path)
    images = [image for _, _, image in reader.sample([12.0])]
    assert len(images) == 24 and images[0].shape == (48, 64, 3)


def test_of_several_video_streams_the_default_one_is_used_and_it_is_said(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for size, disposition in ((32, 0), (64, av.stream.Disposition.default.value)):
            stream = container.add_stream("libx264", rate=12)
            stream.width = stream.height = size
            stream.pix_fmt, stream.disposition = "yuv420p", disposition
            streams.append((stream, size))
        for stream, size in streams:
            for _ in range(12):
                black = np.zeros((size, size, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
            container.mux(stream.encode())
    reader = VideoReader(path)
    assert next(iter(reader.sample([1.0])))[2].shape == (64, 64, 3)
    assert reader.notes == ["of 2 video streams, number 1 (h264) is used"]


def test_sound_alone_is_no_video(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    with pytest.raises(VideoError) as error:
        VideoReader(tmp_path / "sound.mp4")
    assert error.value.reason == "no video"
