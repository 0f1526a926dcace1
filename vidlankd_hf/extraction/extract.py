"""Frames to frozen features to shards: the "frame" stream (2D) and the "clip" stream (3D) of VidLanKD."""

import glob
import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModel

from ..data.shards import FeatureStore, ShardWriter, read_manifest
from .decode import VideoReader

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ogv", ".flv", ".wmv", ".ts")
FRAME_RATE = 1.0  # frames a second
CLIP_FRAME_RATE = 24.0  # frames a second
CLIP_LENGTH = 16  # frames, so 1.5 clips a second


def extract_features(
    videos: str | Path | Iterable[str | Path],
    output_dir: str | Path,
    frame_model: str | Path,
    clip_model: str | Path | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> FeatureStore:
    """Extracts frozen features of videos, as in VidLanKD (https://arxiv.org/abs/2107.02681, section 4.1).

    Two streams: "frame", one picture a second through any vision backbone, stamped with its time; and "clip", 16
    frames at 24 a second, that is 1.5 clips a second, through any video backbone of 16 frames (pixel_values
    ``[B, 16, 3, H, W]``, e.g. VideoMAE), stamped with the middle of the clip. The last clip ends with the video and
    may overlap the one before it; in a video of less than 16 frames the last frame is repeated. A feature is the
    backbone's pooled output where it has one, else the mean of its last hidden state over space (and time), in
    float16. Read them with the returned :class:`~vidlankd_hf.data.shards.FeatureStore`.

    A finished folder of the same videos and settings is left as it is. One that was interrupted is begun anew.

    Args:
        videos: a folder (its files named ``*.mp4``, ``*.webm``, ...), a glob pattern, or paths. The id of a video is
            its file name.
        output_dir: the shard folder.
        frame_model, clip_model: Hub id or folder of a backbone with its image processor; no clip stream without one.
        batch_size: pictures (or clips, a quarter as many) in a forward pass, across videos.
        device: default: a GPU where there is one, else the CPU.

    Raises:
        ValueError: no video, two of the same file name, one that cannot be decoded, a backbone that does not fit, or a
            folder that was finished with other videos or settings.
    """
    paths = find_videos(videos)
    settings = {"frame": {"model": str(frame_model), "rate": FRAME_RATE, "clip_length": 1}}
    if clip_model is not None:
        rate = CLIP_FRAME_RATE / CLIP_LENGTH
        settings["clip"] = {"model": str(clip_model), "rate": rate, "clip_length": CLIP_LENGTH}
    if read_manifest(output_dir) is not None:
        store = FeatureStore(output_dir)
        _refuse_other_settings(store, settings, paths)
        logger.warning(f"{output_dir} already holds the features of these {len(paths)} videos: nothing to do.")
        return store

    readers = [VideoReader(path) for path in tqdm(paths, desc="checking videos", unit="video")]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    streams = [FeatureStream("frame", str(frame_model), FRAME_RATE, 1, batch_size, device)]
    if clip_model is not None:
        clip_batch_size = max(1, batch_size // 4)
        streams.append(FeatureStream("clip", str(clip_model), CLIP_FRAME_RATE, CLIP_LENGTH, clip_batch_size, device))

    writer = ShardWriter(output_dir, settings)
    waiting: list[VideoReader] = []
    for reader in tqdm(readers, desc="extracting features", unit="video"):
        for i, time, image in reader.sample([stream.frame_rate for stream in streams]):
            streams[i].see(reader.path.name, time, image)
        for stream in streams:
            stream.end_video(reader.path.name)
        waiting.append(reader)
        _write_complete(writer, waiting, streams)
    for stream in streams:
        stream.run_batch()
    _write_complete(writer, waiting, streams)
    writer.close()
    return FeatureStore(output_dir)


def find_videos(videos: str | Path | Iterable[str | Path]) -> list[Path]:
    """The video files of a folder, a glob pattern or a list, sorted by file name (their id).

    Raises:
        ValueError: none is found, or two have the same file name.
    """
    if isinstance(videos, (str, Path)):
        if Path(videos).is_dir():
            paths = [path for path in Path(videos).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES]
        else:
            paths = [Path(path) for path in glob.glob(str(videos), recursive=True)]
    else:
        paths = [Path(path) for path in videos]
    if not paths:
        raise ValueError(
            f"No video in {str(videos)!r}: give a folder with files named *{', *'.join(VIDEO_SUFFIXES)}, a glob "
            "pattern, or a list of paths."
        )
    paths.sort(key=lambda path: path.name)
    for one, other in zip(paths, paths[1:]):
        if one.name == other.name:
            raise ValueError(f"{one} and {other} have the same file name, which is a video's id: rename one of them.")
    return paths


class FeatureStream:
    """One backbone: gathers sampled frames to clips, clips to batches, and holds the features until they are taken.

    Args:
        name: of the stream, for messages.
        model_name: Hub id or folder of a vision (``clip_length`` 1) or video backbone.
        frame_rate: frames a second that :meth:`see` is given.
        clip_length: frames that make one feature.
        batch_size: clips (of ``clip_length`` frames) in a forward pass.
        device: where the backbone runs.
    """

    def __init__(self, name, model_name, frame_rate, clip_length, batch_size, device):
        self.name, self.frame_rate, self.clip_length, self.batch_size = name, frame_rate, clip_length, batch_size
        self.device = torch.device(device)
        self.processor = AutoImageProcessor.from_pretrained(model_name)
        self.model = AutoModel.from_pretrained(model_name, dtype=torch.float32).to(self.device).eval()
        model_length = getattr(self.model.config, "num_frames", 1)
        if model_length != clip_length:
            raise ValueError(
                f"{model_name} takes {model_length} frames, the {name!r} stream gives {clip_length}. Choose a "
                f"{'picture' if clip_length == 1 else f'{clip_length}-frame video'} backbone."
            )
        self._frames = deque(maxlen=clip_length)  # (time, image) of the video being decoded
        self._num_frames = 0
        self._batch: list[tuple[str, float, torch.Tensor]] = []
        self._features: dict[str, list[tuple[float, torch.Tensor]]] = {}

    def see(self, video: str, time: float, image: np.ndarray) -> None:
        """Takes the next frame of a video, ``[height, width, 3]`` uint8, shown at ``time`` seconds."""
        self._frames.append((time, image))
        self._num_frames += 1
        if self._num_frames % self.clip_length == 0:
            self._add_clip(video)

    def end_video(self, video: str) -> None:
        """Makes the last clip of a video, from what no clip has seen yet and, before it, what one has."""
        if self._num_frames % self.clip_length:
            self._add_clip(video)
        self._frames.clear()
        self._num_frames = 0

    def _add_clip(self, video: str) -> None:
        times, images = zip(*self._frames)
        pixels = to_pixel_values(np.stack(images), self.processor)
        if len(pixels) < self.clip_length:
            pixels = torch.cat([pixels, pixels[-1:].expand(self.clip_length - len(pixels), -1, -1, -1)])
        self._batch.append((video, (times[0] + times[-1]) / 2, pixels if self.clip_length > 1 else pixels[0]))
        if len(self._batch) == self.batch_size:
            self.run_batch()

    @torch.inference_mode()
    def run_batch(self) -> None:
        """Runs the backbone on the clips gathered so far."""
        if not self._batch:
            return
        videos, times, pixels = zip(*self._batch)
        features = pooled_output(self.model, torch.stack(pixels).to(self.device)).float().cpu()
        for video, time, feature in zip(videos, times, features):
            self._features.setdefault(video, []).append((time, feature))
        self._batch = []

    def is_complete(self, video: str) -> bool:
        """Whether all features of a video that was seen to its end are there."""
        return all(waiting != video for waiting, _, _ in self._batch)

    def take(self, video: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Hands over ``(features [N, F], times [N])`` of a complete video and forgets them."""
        times, features = zip(*self._features.pop(video))
        return torch.stack(features), torch.tensor(times)


def pooled_output(model: torch.nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """One vector per input of a vision backbone.

    Args:
        model: from ``AutoModel``; of a dual encoder such as CLIP its image tower's projection is taken.
        pixel_values: ``[B, 3, H, W]``, or ``[B, frames, 3, H, W]`` for a video backbone.

    Returns:
        ``[B, F]``: ``pooler_output``, or where it is None the mean of ``last_hidden_state`` over tokens or space.
    """
    encode = getattr(model, "get_image_features", model)
    output = encode(pixel_values=pixel_values)
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    states = output.last_hidden_state
    return states.mean(dim=1) if states.ndim == 3 else states.flatten(2).mean(dim=2)


def to_pixel_values(images: np.ndarray, processor) -> torch.Tensor:
    """Resizes, crops, rescales and normalises frames of one size as an image processor would, all at once in torch.

    The processors' own code works picture by picture without torchvision, which at 24 frames a second costs more than
    the backbone. Equal to it up to the rounding of resized pixels.

    Args:
        images: ``[N, height, width, 3]`` uint8.
        processor: from ``AutoImageProcessor``; its settings are read, its code is not run.

    Returns:
        ``[N, 3, H, W]`` float32.

    Raises:
        ValueError: the processor resizes in a way that is not known here.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    crop = _size(processor.crop_size) if getattr(processor, "do_center_crop", None) else None
    if processor.do_resize:
        resized, crop_pct = processor.size, getattr(processor, "crop_pct", None)
        if crop_pct is not None and resized["shortest_edge"] < 384:  # ConvNeXT's and ResNet's processors
            crop = (resized["shortest_edge"],) * 2
            resized = {"shortest_edge": int(resized["shortest_edge"] / crop_pct)}
        elif crop_pct is not None:
            resized = {"height": resized["shortest_edge"], "width": resized["shortest_edge"]}
        pixels = _resize(pixels, _size(resized, pixels.shape[-2:]), int(processor.resample))
    if crop is not None:
        pixels = _center_crop(pixels, crop)
    pixels = pixels.float()
    if processor.do_rescale:
        pixels = pixels * processor.rescale_factor
    if processor.do_normalize:
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    return pixels


def _size(size, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) that a processor's size setting asks for."""
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    if size.get("shortest_edge") and not size.get("longest_edge"):
        edge = size["shortest_edge"]
        if image_size is None:
            return edge, edge
        height, width = image_size
        return (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)
    raise ValueError(
        f"The backbone's image processor has size {size}: {{'height', 'width'}} or {{'shortest_edge'}} is needed. "
        "Correct preprocessor_config.json in a local copy of the backbone."
    )


def _resize(pixels: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    modes = {2: "bilinear", 3: "bicubic"}  # Pillow's codes
    if resample not in modes:
        raise ValueError(
            f"The backbone's image processor has resample={resample}, known are {modes}. Correct "
            "preprocessor_config.json in a local copy of the backbone."
        )
    # On uint8 this rounds as Pillow does.
    return torch.nn.functional.interpolate(pixels, size=size, mode=modes[resample], antialias=True)


def _center_crop(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    height, width = pixels.shape[-2:]
    missing_h, missing_w = max(0, size[0] - height), max(0, size[1] - width)
    if missing_h or missing_w:
        raise ValueError(f"A frame of {height} x {width} is smaller than the crop {size} of the image processor.")
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return pixels[..., top : top + size[0], left : left + size[1]]


def _write_complete(writer: ShardWriter, waiting: list[VideoReader], streams: list[FeatureStream]) -> None:
    """Writes the videos whose features are all there, in order."""
    while waiting and all(stream.is_complete(waiting[0].path.name) for stream in streams):
        reader = waiting.pop(0)
        writer.add(
            reader.path.name, reader.duration, {stream.name: stream.take(reader.path.name) for stream in streams}
        )


def _refuse_other_settings(store: FeatureStore, settings: dict, paths: list[Path]) -> None:
    held = {name: {key: stream[key] for key in stream if key != "width"} for name, stream in store.streams.items()}
    if held != settings:
        raise ValueError(
            f"{store.folder} holds features made with {held}, not {settings}. Give another folder, or remove this one."
        )
    other = set(store.video_ids) ^ {path.name for path in paths}
    if other:
        raise ValueError(
            f"{store.folder} holds the features of {len(store)} videos, not of these {len(paths)}: {len(other)} "
            f"differ (e.g. {min(other)!r}). Give another folder, or remove this one."
        )
