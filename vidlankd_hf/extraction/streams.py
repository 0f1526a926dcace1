"""Feature streams: which backbone is applied to a video, and at which frame rate."""

import re
from dataclasses import dataclass, replace

FRAME_RATE = 1.0  # frames per second of VidLanKD's 2D features
CLIP_FRAME_RATE = 24.0  # frames per second of VidLanKD's 3D features
CLIP_LENGTH = 16  # frames per clip, so 1.5 clips per second
SPELLING = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<model>.+)@(?P<rate>[0-9.]+)(x(?P<length>[0-9]+))?")


@dataclass(frozen=True)
class Stream:
    """A named stream of features from one backbone.

    Args:
        name: Name of the stream in the shards; letters, digits, `-` and `_`.
        model: Hub id or folder of an image or video backbone with its image processor.
        rate: Frames per second that are passed to the backbone.
        clip_length: Frames per feature, which gives `rate / clip_length` features per second. Use 1 for image
            backbones.
        processor: Hub id or folder with the image processor, if not the model's.

    Raises:
        ValueError: Invalid name, or a rate or length that is not positive.
    """

    name: str
    model: str
    rate: float
    clip_length: int = 1
    processor: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "model", str(self.model))
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"Invalid stream name {self.name!r}. Use letters, digits, - and _.")
        if not (self.rate > 0 and self.clip_length >= 1):
            raise ValueError(f"Stream {self.name!r}: rate {self.rate} and length {self.clip_length} must be positive.")

    @classmethod
    def parse(cls, text: str) -> "Stream":
        """Parses `name=model@rate` (images) or `name=model@ratexlength` (clips), for example `clip=MODEL@24x16`."""
        match = SPELLING.fullmatch(text)
        if not match:
            raise ValueError(
                f"{text!r} is not a stream. Write name=model@rate for images (frame=microsoft/resnet-152@1) or "
                "name=model@ratexlength for clips (clip=MCG-NJU/videomae-base-finetuned-kinetics@24x16)."
            )
        return cls(match["name"], match["model"], float(match["rate"]), int(match["length"] or 1))


def paper_streams(frame_model: str, clip_model: str | None = None) -> list[Stream]:
    """Returns the streams of VidLanKD (arXiv 2107.02681, section 4.1).

    Args:
        frame_model: Image backbone of the stream `"frame"`, with one frame per second.
        clip_model: Video backbone of the stream `"clip"`, with clips of 16 frames at 24 frames per second.
    """
    streams = [Stream("frame", str(frame_model), FRAME_RATE)]
    return streams + ([Stream("clip", str(clip_model), CLIP_FRAME_RATE, CLIP_LENGTH)] if clip_model else [])


def with_processors(streams: list[Stream], texts: list[str]) -> list[Stream]:
    """Gives streams other image processors than those of their models.

    Args:
        streams: The streams.
        texts: `name=FOLDER` or `name=HUB_ID` for each stream to change.

    Raises:
        ValueError: A text is not of this form, or names no stream.
    """
    processors = dict(text.partition("=")[::2] for text in texts)
    unknown = sorted(processors.keys() - {stream.name for stream in streams})
    if unknown or not all(processors.values()):
        names = ", ".join(stream.name for stream in streams)
        raise ValueError(f"--processors {' '.join(texts)}: write name=FOLDER, with the name of a stream ({names}).")
    return [replace(stream, processor=processors.get(stream.name, stream.processor)) for stream in streams]
