"""Feature streams: which backbone sees a video at which rate."""

import re
from dataclasses import dataclass

FRAME_RATE = 1.0  # pictures a second, VidLanKD's 2D features
CLIP_FRAME_RATE = 24.0  # frames a second
CLIP_LENGTH = 16  # frames, so 1.5 clips a second, VidLanKD's 3D features
SPELLING = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<model>.+)@(?P<rate>[0-9.]+)(x(?P<length>[0-9]+))?")


@dataclass(frozen=True)
class Stream:
    """A named stream of features of one backbone.

    Args:
        name: Of its columns in the shards.
        model: Hub id or folder of a vision backbone, or of a video backbone, with its image processor.
        rate: Frames a second that the backbone is shown.
        clip_length: Frames that make one feature, so `rate / clip_length` features a second; 1 for pictures.

    Raises:
        ValueError: A name that is no word, or a rate or length that is not positive.
    """

    name: str
    model: str
    rate: float
    clip_length: int = 1

    def __post_init__(self):
        object.__setattr__(self, "model", str(self.model))
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"A stream's name {self.name!r} must be of letters, digits, - and _.")
        if not (self.rate > 0 and self.clip_length >= 1):
            raise ValueError(f"Stream {self.name!r}: rate {self.rate} and length {self.clip_length} must be positive.")

    @classmethod
    def parse(cls, text: str) -> "Stream":
        """A stream from `name=model@rate` (pictures) or `name=model@ratexlength` (clips), e.g. `clip=MODEL@24x16`."""
        match = SPELLING.fullmatch(text)
        if not match:
            raise ValueError(
                f"{text!r} is no stream. Write name=model@rate for pictures (frame=microsoft/resnet-152@1) and "
                "name=model@rate x length for clips (clip=MCG-NJU/videomae-base-finetuned-kinetics@24x16)."
            )
        return cls(match["name"], match["model"], float(match["rate"]), int(match["length"] or 1))


def paper_streams(frame_model: str, clip_model: str | None = None) -> list[Stream]:
    """VidLanKD's streams (https://arxiv.org/abs/2107.02681, section 4.1): "frame", one picture a second, and with a
    video backbone "clip", 16 frames at 24 a second."""
    streams = [Stream("frame", str(frame_model), FRAME_RATE)]
    return streams + ([Stream("clip", str(clip_model), CLIP_FRAME_RATE, CLIP_LENGTH)] if clip_model else [])
