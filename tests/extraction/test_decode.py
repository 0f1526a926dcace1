import av
import numpy as np
import pytest
from video_files import GREY_LEVELS, write_cut_short, write_grey_video, write_sound

from vidlankd_hf.experiments.world.render import FPS, Look, render_scene, write_video
from vidlankd_hf.extraction.decode import VideoReader


def grey_level(image):
    return GREY_LEVELS[np.abs(GREY_LEVELS - np.median(image[40:])).argmin()]


def test_a_rendered_scene_survives_encoding_and_decoding(tmp_path):
    frames, _ = render_scene([Look("red", "square", "spins")], 30, np.random.default_rng(0))
    write_video(tmp_path / "scene.mp4", frames)
    reader = VideoReader(tmp_path / "scene.mp4")
    decoded = [image for _, _, image in reader.sample([FPS])]
    assert len(decoded) == 30
    assert reader.duration == pytest.approx(30 / FPS)
    difference = np.abs(np.stack(decoded).astype(float) - frames)
    assert difference.mean() < 6
    # The right frame, not its neighbor.
    shifted = np.abs(np.stack(decoded)[1:].astype(float) - frames[:-1])
    assert shifted.mean() > 1.5 * difference.mean()


def test_sampling_follows_timestamps_not_frame_numbers(tmp_path):
    stamps = [0, 100, 200, 1000, 1900, 2000, 2050]
    path = write_grey_video(tmp_path / "variable.mkv", stamps)
    for rate in (1, 2.5, 24):
        sampled = [(time, grey_level(image)) for _, time, image in VideoReader(path).sample([rate])]
        assert [time for time, _ in sampled] == [k / rate for k in range(len(sampled))]
        for time, level in sampled:
            shown = max(i for i, stamp in enumerate(stamps) if stamp <= round(time * 1000))
            assert level == GREY_LEVELS[shown], f"at {time} s"


def test_two_rates_in_one_pass_equal_separate_passes(tmp_path):
    path = write_grey_video(tmp_path / "video.mp4", range(0, 2200, 200))
    together = list(VideoReader(path).sample([1, 24]))
    for i, rate in enumerate([1, 24]):
        alone = list(VideoReader(path).sample([rate]))
        of_rate = [(time, image) for j, time, image in together if j == i]
        assert [time for time, _ in of_rate] == [time for _, time, _ in alone]
        assert all(np.array_equal(one, other[2]) for (_, one), other in zip(of_rate, alone))


@pytest.mark.parametrize("origin", [0, 83])
def test_timestamps_rounded_to_milliseconds_neither_repeat_nor_skip_frames(tmp_path, origin):
    path = write_grey_video(tmp_path / "video.mkv", [origin + round(1000 * k / 24) for k in range(len(GREY_LEVELS))])
    levels = [grey_level(image) for _, _, image in VideoReader(path).sample([24])]
    assert levels == GREY_LEVELS.tolist()


def test_time_starts_at_the_first_frame(tmp_path):
    path = write_grey_video(tmp_path / "late.mkv", [5000, 5500, 6000, 6500])
    reader = VideoReader(path)
    assert [(time, grey_level(image)) for _, time, image in reader.sample([1])] == [(0, 20), (1, 60)]
    assert 1.5 < reader.duration < 2.1


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm"])
def test_containers_decode_whatever_their_file_name(tmp_path, suffix):
    codec = "libvpx" if suffix == "webm" else "libx264"
    path = tmp_path / f"video.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 64, "yuv420p"
        for level in GREY_LEVELS[:10]:
            frame = av.VideoFrame.from_ndarray(np.full((64, 32, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    renamed = path.rename(tmp_path / "no_suffix")
    images = [image for _, _, image in VideoReader(renamed).sample([10])]
    assert [image.shape for image in images] == [(64, 32, 3)] * 10
    assert np.abs(np.median(np.stack(images), axis=(1, 2, 3)) - GREY_LEVELS[:10]).max() < 8


def test_videos_with_a_rotation_are_turned_upright(tmp_path):
    path = write_grey_video(tmp_path / "phone.mp4", range(0, 300, 100))
    content = bytearray(path.read_bytes())
    # The track header's matrix, 40 bytes into its content: a quarter turn clockwise when shown.
    matrix = content.index(b"tkhd") + 4 + 40
    quarter_turn = [0, 1 << 16, 0, -(1 << 16) & 0xFFFFFFFF, 0, 0, 0, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big") for value in quarter_turn)
    path.write_bytes(bytes(content))
    image = next(image for _, _, image in VideoReader(path).sample([1]))
    assert image.shape == (32, 64, 3)
    white = image.min(axis=-1) > 200
    # The white quarter was top left; clockwise it comes to the top right.
    assert white[:14, 34:].all() and not white[18:].any() and not white[:, :30].any()


def write_unknown_codec(path):
    write_grey_video(path, range(0, 300, 100))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))


@pytest.mark.parametrize(
    "write, reason",
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "cannot be read as a video"),
        (lambda path: path.write_text("not a video\n" * 100), "cannot be read as a video"),
        (write_sound, "no video stream"),
        (write_cut_short, "cannot be read as a video"),
        (write_unknown_codec, "FFmpeg does not know the codec"),
    ],
    ids=["missing", "empty", "text", "sound only", "cut short", "unknown codec"],
)
def test_opening_a_file_that_is_not_a_video_is_an_error_that_names_it(tmp_path, write, reason):
    path = tmp_path / "bad.mp4"
    write(path)
    with pytest.raises(ValueError, match=reason) as error:
        VideoReader(path)
    assert str(path) in str(error.value) and "Give a video" in str(error.value)


def test_a_video_stream_without_one_decodable_frame_is_an_error(tmp_path):
    path = write_grey_video(tmp_path / "broken.mkv", range(0, 1000, 100))
    content = path.read_bytes()
    start = content.index(b"x264")  # in the first frame's data
    path.write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(ValueError, match=str(path)):
        list(VideoReader(path).sample([1]))


def test_a_jump_in_the_timestamps_is_an_error(tmp_path):
    path = write_grey_video(tmp_path / "jump.mkv", [0, 10**9, 10**9 + 40])
    with pytest.raises(ValueError, match="one frame lasts .* s, so its timestamps are wrong"):
        for _ in VideoReader(path).sample([1, 24]):
            pass


def test_the_shortest_video_has_a_frame_for_every_rate(tmp_path):
    path = tmp_path / "short.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2000)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    assert [(i, time) for i, time, _ in VideoReader(path).sample([1, 24])] == [(0, 0.0), (1, 0.0)]


def test_a_rate_of_zero_is_refused(tmp_path):
    path = write_grey_video(tmp_path / "video.mp4", range(0, 300, 100))
    with pytest.raises(ValueError, match="rate 0"):
        list(VideoReader(path).sample([0]))
