"""Measures how captions and video are aligned in time: their similarity for a trained teacher, at time offsets."""

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..data.captions import Caption
from ..data.features import FeatureStore
from ..data.pairing import Pairs
from ..data.tokenization import tokenize
from ..data.vocabulary import check_vocabulary_size, load_tokenizer
from ..data.windows import divide
from ..models.load_teacher import load_teacher
from ..models.teacher import VidLanKDTeacher, token_means
from ..utils.extras import requires_extra
from ..utils.io import atomic_write
from ..utils.loading import loading
from ..utils.messages import number_of

OFFSETS = np.arange(-20, 21) / 2  # seconds
CAPTIONS, BATCH = 512, 64
LEAST_SHARE = 0.25  # of the captions that must have a clip at an offset for its mean to count
SIGNIFICANT = 3  # standard errors; the peak is the highest of 41 means

Encoder = Callable[[list], Tensor]  # texts, or features [T, F] of clips, to vectors [N, J]
Encoders = tuple[Encoder, Encoder, PreTrainedTokenizerBase]


def measure_alignment(
    encoders: Encoders,
    features: str | Path,
    streams: Sequence[str] | None,
    pairs: Pairs,
    max_length: int,
    seed: int = 0,
) -> dict:
    """Measures on a sample of captions at which time offset they fit the video best; see [`summarize_alignment`].

    Args:
        encoders: From [`load_encoders`].
        features: Folder of the features.
        streams: Feature streams that the teacher sees; all by default.
        pairs: Output of [`pair_captions`].
        max_length: Maximum number of tokens of a text, including special tokens.
        seed: Seed for choosing the captions.

    Raises:
        ValueError: All captions belong to one video.
    """
    encode_texts, encode_clips, tokenizer = encoders
    captions = sample_captions(pairs, tokenizer, max_length - 2, seed=seed)
    found = advantages(captions, FeatureStore(features, streams), encode_texts, encode_clips)
    return summarize_alignment(found, [caption.video for caption in captions])


def load_encoders(path: str | Path) -> Encoders:
    """Loads a teacher's encoders of texts and clips, and its tokenizer.

    Args:
        path: Hub id or folder.

    Raises:
        ValueError: There is no teacher, it has no video encoder, or the tokenizer does not fit it.
        ImportError: The extra `world`, which draws the figure, is not installed.
    """
    with requires_extra("world"):
        import matplotlib  # noqa: F401 (an error now rather than after the encoding)
    with loading(str(path), "the folder or Hub id of a teacher"):
        teacher, tokenizer = load_teacher(path), load_tokenizer(str(path))
    if not isinstance(teacher, VidLanKDTeacher) or teacher.video_encoder is None:
        raise ValueError(
            f"{path} has no video encoder, so it cannot compare captions with clips: give a VidLanKDTeacher that was "
            "trained with losses='contrast+mlm' or 'contrast'"
        )
    check_vocabulary_size(tokenizer, "teacher", teacher.config.vocab_size, teacher.config.vocabulary)
    teacher.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    longest = teacher.config.video_config.max_position_embeddings

    def encode_texts(texts: list[str]) -> Tensor:
        ends = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
        rows = [torch.tensor([*ends[0], *ids, *ends[1]]) for ids in tokenize(tokenizer, texts)]
        ids, mask = _padded(rows, tokenizer.pad_token_id, teacher.device)
        return token_means(teacher.unit_tokens(teacher.encode_text(ids, mask)), mask)

    def encode_clips(clips: list[Tensor]) -> Tensor:
        steps = [torch.linspace(0, len(clip) - 1, min(longest, len(clip))).round().long() for clip in clips]
        features, mask = _padded([clip[rows].float() for clip, rows in zip(clips, steps)], 0.0, teacher.device)
        return teacher.encode_video(features, mask)

    return encode_texts, encode_clips, tokenizer


def _padded(rows: list[Tensor], padding: float, device: torch.device) -> tuple[Tensor, Tensor]:
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True, padding_value=padding).to(device), mask.to(device)


def sample_captions(
    pairs: Pairs, tokenizer: PreTrainedTokenizerBase, max_tokens: int, count: int = CAPTIONS, seed: int = 0
) -> list[Caption]:
    """Draws captions at random and divides those longer than `max_tokens`.

    Args:
        pairs: Output of [`pair_captions`].
        tokenizer: Counts the tokens.
        max_tokens: Maximum number of tokens of a text.
        count: Maximum number of captions.
        seed: Seed for drawing.

    Raises:
        ValueError: All captions belong to one video, so there is nothing to compare with.
    """
    if len(pairs.by_video) < 2:
        raise ValueError(
            f"captions of {number_of(len(pairs.by_video), 'video')} were paired, but each caption is also compared "
            "with other "
            "videos: give captions of 2 videos or more"
        )
    captions = [caption for video in pairs.by_video.values() for caption in video]
    chosen = np.random.default_rng(seed).permutation(len(captions))[:count]
    return [line for line, _ in divide([captions[i] for i in sorted(chosen)], tokenizer, max_tokens)]


@torch.no_grad()
def advantages(
    captions: Sequence[Caption], store: FeatureStore, encode_texts: Encoder, encode_clips: Encoder
) -> np.ndarray:
    """How much more similar each caption is to its own video, at each offset, than to other videos.

    Args:
        captions: Captions of at least two videos, from [`sample_captions`].
        store: The features.
        encode_texts, encode_clips: From [`load_encoders`].

    Returns:
        `[offsets, captions]`: the caption's similarity to the clip of the same video that is as long as the caption
        and starts `OFFSETS[i]` seconds after it, minus its mean similarity to such clips of other videos; NaN where
        the clip would lie outside the video.
    """
    texts = _encode(encode_texts, [caption.text for caption in captions])
    _, video = np.unique([caption.video for caption in captions], return_inverse=True)
    found = np.full((len(OFFSETS), len(captions)), np.nan)
    for row, offset in zip(found, OFFSETS):
        inside = [
            i
            for i, caption in enumerate(captions)
            if caption.start + offset >= 0 and caption.end + offset <= store.duration(caption.video)
        ]
        spans = [(captions[i].video, captions[i].start + offset, captions[i].end + offset) for i in inside]
        others = video[inside][:, None] != video[inside]
        if not others.any():
            continue
        similarities = texts[inside] @ _encode(encode_clips, [store.read(*span)[0] for span in spans]).T
        with np.errstate(invalid="ignore"):
            row[inside] = similarities.diagonal() - (similarities * others).sum(1) / others.sum(1)
    return found


def _encode(encode: Encoder, items: list) -> np.ndarray:
    parts = [encode(items[first : first + BATCH]).double().cpu().numpy() for first in range(0, len(items), BATCH)]
    return np.concatenate(parts)


def summarize_alignment(found: np.ndarray, videos: Sequence[str]) -> dict:
    """Finds the offset at which captions fit the video best.

    Args:
        found: Output of [`advantages`].
        videos: The video of each caption.

    Returns:
        A JSON-serializable dict: for each of the `offsets` (seconds) the `similarity`, its `standard_error` (captions
        of one video are not independent) and the number of `captions`; the `peak` (seconds, or `None` if no offset
        stands out), and a `sentence` about it.
    """
    counts = np.isfinite(found).sum(1)
    statistics = [_mean_and_error(row, videos) for row in found]
    means = np.array([mean for mean, _ in statistics])
    usable = np.flatnonzero(counts >= max(1, LEAST_SHARE * counts.max()))
    best = min(usable, key=lambda i: (-means[i], abs(OFFSETS[i])))
    seconds, now = float(OFFSETS[best]), int(np.flatnonzero(OFFSETS == 0)[0])
    over_all = found[best] - np.nanmean(np.where(np.isin(np.arange(len(found)), usable)[:, None], found, np.nan), 0)
    peak = None
    if not _is_significant(found[best], videos) or not _is_significant(over_all, videos):
        sentence = "No offset fits: the similarity of captions and clips hardly depends on the time between them."
    elif seconds and not _is_significant(found[best] - found[now], videos):
        sentence = f"No offset is visible: the similarity is highest at {seconds:+.1f} s, but about the same at 0 s."
    elif not seconds:
        peak, sentence = 0.0, "Captions come at the same time as the picture."
    else:
        peak, order = seconds, "before" if seconds > 0 else "after"
        limit = " or more" if best in (usable[0], usable[-1]) else ""
        sentence = f"Captions come {abs(seconds):.1f} s{limit} {order} the picture."
    return {
        "sentence": sentence,
        "peak": peak,
        "offsets": OFFSETS.tolist(),
        "similarity": [None if np.isnan(mean) else mean for mean, _ in statistics],
        "standard_error": [None if np.isnan(error) else error for _, error in statistics],
        "captions": counts.tolist(),
    }


def _is_significant(values: np.ndarray, videos: Sequence[str]) -> bool:
    mean, error = _mean_and_error(values, videos)
    return mean > SIGNIFICANT * error and mean > 1e-9


def _mean_and_error(values: np.ndarray, videos: Sequence[str]) -> tuple[float, float]:
    """Mean of the values that are not NaN, and its standard error, clustered by video."""
    real = np.isfinite(values)
    if not real.any():
        return float("nan"), float("nan")
    values, (_, video) = values[real], np.unique(np.asarray(videos)[real], return_inverse=True)
    sums = np.bincount(video, values - values.mean())
    return float(values.mean()), float(np.sqrt(np.square(sums).sum()) / len(values))


def write_alignment(summary: dict, folder: Path) -> None:
    """Writes `alignment.json`, and `alignment.png`: the similarity against the offset, with its standard error.

    Args:
        summary: Output of [`summarize_alignment`].
        folder: Where to write.
    """
    from matplotlib.figure import Figure

    atomic_write(folder / "alignment.json", json.dumps(summary, indent=2) + "\n")
    points = zip(summary["offsets"], summary["similarity"], summary["standard_error"], summary["captions"])
    least = max(1, LEAST_SHARE * max(summary["captions"]))
    x, y, error = np.array([point[:3] for point in points if point[3] >= least]).T
    figure = Figure((7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(x, y - error, y + error, color="#2f6fab", alpha=0.2, lw=0, label="± 1 standard error")
    axis.plot(x, y, color="#2f6fab", marker="o", ms=4)
    axis.axvline(0, color="#7b8794", lw=0.8)
    if summary["peak"] is not None:
        axis.axvline(summary["peak"], color="#d64545", lw=1.2, ls="--", label=f"peak: {summary['peak']:+.1f} s")
    axis.set_title(textwrap.fill(summary["sentence"], 80), fontsize=11, loc="left")
    axis.set_xlabel("start of the clip minus start of the caption (seconds)")
    axis.set_ylabel("similarity, minus that to other videos")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    figure.savefig(folder / "alignment.png", dpi=120)
