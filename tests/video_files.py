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
