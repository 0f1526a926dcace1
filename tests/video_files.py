"""Small video files, good and bad, that tests of several rooms decode."""

from fractions import Fraction

import av
import numpy as np

from vidlankd_hf.experiments.world.render import Look, render_scene, write_video

GREY_LEVELS = np.arange(20, 240, 20)


def write_grey_video(path, pts, time_base=Fraction(1, 1000), options=None):
    """Writes one frame per timestamp. Frame i is grey (GREY_LEVELS[i]) with a white top left quarter."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 32, 64, "yuv420p", time_base
        stream.codec_context.time_base = time_base
        for level, stamp in zip(GREY_LEVELS, pts):
            image = np.full((64, 32, 3), level, dtype=np.uint8)
            image[:32, :16] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_cut_short(path):
    frames, _ = render_scene([Look("blue", "disc", "rests")], 24, np.random.default_rng(0))
    write_video(path, frames)
    path.write_bytes(path.read_bytes()[:2000])


def write_large(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width = stream.height = 10_000
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame(10_000, 10_000, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_video_file(
    path, frames=48, rate=12, codec="libx264", options=None, sound=0, size=(64, 48), first=0, codec_options=None,
    **stream_settings,
):  # fmt: skip
    """Writes noise, which does not compress, in any container; frame i has the mean brightness 40 + 3 i.

    Args:
        path: The file.
        frames, rate, codec, size: Number of frames, frames per second, video codec, and (width, height).
        options: Options of the container.
        sound: Seconds of silence.
        first: Seconds from the start of the sound to the first frame.
        codec_options: Options of the encoder.
        stream_settings: Attributes of the video stream, such as `sample_aspect_ratio`.
    """
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=codec_options or {})
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", 6
        for name, value in stream_settings.items():
            setattr(stream.codec_context, name, value)
        voice = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for second in range(int(sound)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16_000, 16_000 * second
            container.mux(voice.encode(silence))
        if voice:
            container.mux(voice.encode())
        for i in range(frames):
            image = np.clip(rng.integers(-20, 21, (size[1], size[0], 3)) + 40 + 3 * i, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i + first * rate, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def set_display_matrix(path, matrix):
    """Overwrites the display matrix (a, b, c, d) of the only track of an mp4 file."""
    a, b, c, d = (value << 16 & 0xFFFFFFFF for value in matrix)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # 40 bytes into the content of the track's header
    content[place : place + 36] = b"".join(v.to_bytes(4, "big") for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(bytes(content))
