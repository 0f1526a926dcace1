"""Pictures are shown as a player shows them."""

import gc
from fractions import Fraction

import av
import numpy as np
import pytest
from video_files import set_display_matrix, write_grey_video, write_video_file

from vidlankd_hf.extraction.container import VideoError
from vidlankd_hf.extraction.decode import VideoReader

# (a, b, c, d): a point (x, y) of the stored picture is shown at (a x + c y, b x + d y).
MATRICES = {
    "as stored": ((1, 0, 0, 1), lambda image: image),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "turned by 180": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda image: image[::-1, ::-1].swapaxes(0, 1)),
}


def first(path):
    return next(image for _, _, image in VideoReader(path).sample([1.0]))


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_turn_and_mirror(tmp_path, name):
    matrix, expected = MATRICES[name]
    stored = first(write_grey_video(tmp_path / "stored.mp4", [0, 100]))
    path = write_grey_video(tmp_path / "a.mp4", [0, 100])
    set_display_matrix(path, matrix)
    shown = first(path)
    assert shown.shape == expected(stored).shape
    assert np.abs(shown.astype(int) - expected(stored)).max() <= 2


def test_a_converted_frame_is_freed_at_once_and_turned_like_the_first(tmp_path):
    """Large frames that wait for the garbage collection would fill the memory of the decoding child."""
    path = write_video_file(tmp_path / "a.mp4", frames=40)
    set_display_matrix(path, MATRICES["clockwise"][0])
    gc.collect()
    gc.disable()
    try:
        counts = []
        for _, _, image in VideoReader(path).sample([1000.0]):
            assert image.shape == (64, 48, 3)
            counts.append(sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()))
    finally:
        gc.enable()
    assert len(counts) > 40 and max(counts) <= 6


@pytest.mark.parametrize("ratio, shape", [("2:1", (48, 128)), ("1:2", (96, 64)), ("100:101", (48, 64))])
def test_pixels_become_square(tmp_path, ratio, shape):
    width, height = map(int, ratio.split(":"))
    path = write_video_file(tmp_path / "a.mp4", frames=3, sample_aspect_ratio=Fraction(width, height))
    assert first(path).shape == (*shape, 3)


def test_pixels_that_cannot_be_are_an_error(tmp_path):
    path = write_video_file(tmp_path / "a.mp4", frames=3, sample_aspect_ratio=Fraction(10, 1))
    with pytest.raises(VideoError, match="pixels have an aspect ratio of 10:1, beyond 8:1"):
        first(path)


def test_a_turned_picture_is_stretched_before_it_is_turned(tmp_path):
    path = write_video_file(tmp_path / "a.mp4", frames=3, sample_aspect_ratio=Fraction(2, 1))
    set_display_matrix(path, (0, 1, -1, 0))
    assert first(path).shape == (128, 48, 3)


def test_interlaced_frames_show_one_moment(tmp_path):
    """The two fields of a frame are of two moments: here, black and white."""
    combed = np.zeros((48, 64, 3), np.uint8)
    combed[1::2] = 255
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "q": "1", "top": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 8_000_000
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(combed, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame, "as the test means it"
    image = first(path)
    assert image.shape == (48, 64, 3) and image.max() < 40


def test_after_a_change_of_size_pictures_are_fitted_into_the_first_one(tmp_path):
    parts = []
    for number, size in enumerate([(64, 48), (48, 64)]):
        parts.append(write_video_file(tmp_path / f"{number}.ts", frames=12, size=size).read_bytes())
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    images = [image for _, _, image in VideoReader(path).sample([2.0])]
    assert [image.shape for image in images] == [(48, 64, 3)] * 4
    assert images[0][:, :10].mean() > 20
    assert images[-1][:, :10].max() == 0 and images[-1][:, 20:44].mean() > 20, "bars on both sides"
