"""Builds the grounded world in stages: words, videos, backbones, features."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import AutoTokenizer, BertTokenizerFast

from ...extraction.extract import extract_features
from ...extraction.streams import paper_streams
from ...utils.io import atomic_dir, atomic_write
from ..folders import begin_folder
from .backbones import pretrain_backbones
from .language import cast_videos, invent_nouns, narrate, write_sentences
from .render import FPS, Look, render_scene, write_video

SECONDS = (4, 6)  # length of the shortest and the longest video
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_world(
    output_dir: str | Path,
    seed: int = 0,
    num_nouns: int = 144,
    num_videos: int = 1440,
    num_sentences: int = 24000,
    vocab_size: int = 864,
    num_pretrain_scenes: int = 4000,
    frame_pretrain_steps: int = 1000,
    clip_pretrain_steps: int = 400,
) -> Path:
    """Builds a world whose videos show what things look like and whose text never says it.

    `output_dir` then holds `nouns.json` ({noun, colour, shape, motion}, for probing only), `captions.jsonl` ({video,
    start, end, text}), `text/train.txt` and `text/validation.txt` (one sentence per line), `tokenizer/`,
    `videos/*.mp4`, `backbones/frame` and `backbones/clip`, `features/` (a [`FeatureStore`]) and, written last,
    `world.json` (settings and counts). Each stage is written atomically and finished stages are skipped, so an
    interrupted build continues when it is run again.

    Args:
        output_dir: New folder, or one that was started with the same settings.
        seed: Seed of words and pictures.
        num_nouns: Number of nouns, a multiple of 48, so that attributes and pairs of attributes are balanced.
        num_videos: Number of videos of 4 to 6 s, with one to three objects each.
        num_sentences: Number of training sentences; a tenth as many validation sentences are written in addition.
        vocab_size: Maximum size of the WordPiece vocabulary, small enough to split longer nouns.
        num_pretrain_scenes: Number of clips for pre-training the vision backbones.
        frame_pretrain_steps: Training steps of the frame backbone.
        clip_pretrain_steps: Training steps of the clip backbone.

    Returns:
        `output_dir`.

    Raises:
        ValueError: The sizes cannot be balanced, or the folder holds a world with other settings.
    """
    settings = dict(locals())  # all arguments, by name
    output_dir = Path(settings.pop("output_dir"))
    videos, backbones = output_dir / "videos", output_dir / "backbones"
    nouns = invent_nouns(num_nouns, seed)
    cast = cast_videos(list(nouns), num_videos, seed)
    begin_folder(output_dir, settings, "world")
    if (output_dir / "world.json").is_file():
        print(f"{output_dir} already holds this world: nothing to do.")
        return output_dir

    counts = _make_words(output_dir, nouns, cast, num_sentences, vocab_size, seed)
    print(
        f"Words: {num_nouns} nouns, {counts['captions']} captions, {counts['train_sentences']} sentences, a "
        f"vocabulary of {counts['vocabulary']} in {output_dir}"
    )
    _make_folder(videos, lambda folder: _render_videos(folder, nouns, cast, seed))
    print(f"Videos: {num_videos} clips in {videos}")
    with _one_thread():
        sizes = num_pretrain_scenes, frame_pretrain_steps, clip_pretrain_steps
        _make_folder(backbones, lambda folder: pretrain_backbones(folder, seed, *sizes))
        print(f"Backbones: a ResNet and a VideoMAE, pre-trained on rendered scenes, in {backbones}")
        streams = paper_streams(backbones / "frame", backbones / "clip")
        store = extract_features(videos, output_dir / "features", streams, device="cpu")
    print(f"Features: {len(store)} videos, {store.feature_size} values per second, in {output_dir / 'features'}")
    atomic_write(output_dir / "world.json", json.dumps({**settings, "counts": counts}, indent=2) + "\n")
    return output_dir


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread: more threads make models this small slower, much slower on shared cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a folder atomically; an existing folder is left unchanged."""
    if not folder.is_dir():
        with atomic_dir(folder) as part:
            fill(part)


def _make_words(
    output_dir: Path, nouns: dict[str, Look], cast: list[list[str]], num_sentences: int, vocab_size: int, seed: int
) -> dict[str, int]:
    """Writes nouns, captions, text and tokenizer; a seed always gives the same files."""
    captions = [
        {"video": video_name(i), "start": start, "end": end, "text": text}
        for i, shown in enumerate(cast)
        for start, end, text in narrate(shown, num_frames(seed, i) / FPS, np.random.default_rng((seed, 4, i)))
    ]
    train = write_sentences(list(nouns), num_sentences, seed, "train")
    validation = write_sentences(list(nouns), max(1, num_sentences // 10), seed, "validation")
    looks = [{"noun": noun, **asdict(look)} for noun, look in nouns.items()]
    (output_dir / "text").mkdir(exist_ok=True)
    atomic_write(output_dir / "nouns.json", json.dumps(looks, indent=2) + "\n")
    atomic_write(output_dir / "captions.jsonl", "".join(json.dumps(line) + "\n" for line in captions))
    atomic_write(output_dir / "text" / "train.txt", "\n".join(train) + "\n")
    atomic_write(output_dir / "text" / "validation.txt", "\n".join(validation) + "\n")
    lines = [caption["text"] for caption in captions] + train
    _make_folder(output_dir / "tokenizer", lambda folder: train_tokenizer(lines, vocab_size).save_pretrained(folder))
    return {
        "captions": len(captions),
        "train_sentences": len(train),
        "validation_sentences": len(validation),
        "vocabulary": len(AutoTokenizer.from_pretrained(output_dir / "tokenizer", trust_remote_code=False)),
    }


def train_tokenizer(lines: list[str], vocab_size: int) -> BertTokenizerFast:
    """Trains a WordPiece tokenizer like BERT's on `lines`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Letters are numbered here: the trainer numbers them in random order, which decides how ties break.
    letters = sorted({letter for line in lines for letter in line.lower() if letter != " "})
    first = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return BertTokenizerFast(vocab=tokenizer.get_vocab(), do_lower_case=True, model_max_length=512)


def video_name(index: int) -> str:
    """File name of a video, which is also its id."""
    return f"video-{index:05d}.mp4"


def num_frames(seed: int, index: int) -> int:
    """Length of a video in frames."""
    return int(np.random.default_rng((seed, 9, index)).integers(SECONDS[0] * FPS, SECONDS[1] * FPS + 1))


def render_video(nouns: dict[str, Look], shown: list[str], seed: int, index: int) -> np.ndarray:
    """Frames `[T, 64, 64, 3]` uint8 of the video that shows the nouns `shown`."""
    looks = [nouns[noun] for noun in shown]
    return render_scene(looks, num_frames(seed, index), np.random.default_rng((seed, 5, index)))[0]


def _render_videos(folder: Path, nouns: dict[str, Look], cast: list[list[str]], seed: int) -> None:
    def render(index: int) -> None:
        write_video(folder / video_name(index), render_video(nouns, cast[index], seed, index))

    # Threads suffice: numpy and the encoder release the GIL.
    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(render, range(len(cast))), total=len(cast), desc="rendering videos", unit="video"):
            pass
