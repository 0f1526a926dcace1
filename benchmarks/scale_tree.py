"""Makes a tree of files like HowTo100M and Wikipedia, at a fraction of their size, and settings for the commands.

    python benchmarks/scale_tree.py --fraction 1/1000 --text MY_TEXT.txt.xz --output_dir outputs/tree
    vidlankd prepare --config outputs/tree/settings.yaml
    vidlankd teacher --config outputs/tree/settings.yaml --max_steps 20

What is as in HowTo100M and Wikipedia: the number of videos, captions and tokens of the text, in proportion; the length
of videos, the number of captions of a video and their words; the names and layout of the files (one .npy file per
video and stream, in subfolders; one caption.json). What is not: features are 8 wide (--width) and are noise; words
come from --text, so captions do not describe their videos. With --sparse --width 2048, feature files are as large as
the published ones and take no disk space, because they are holes that read as zeros.

The settings have a tiny teacher and student, and shards of as many videos as a shard of the published features has.
"""

import argparse
import hashlib
import json
import lzma
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import yaml

VIDEOS, HOURS, CAPTIONS = 1_220_000, 134_472, 136_000_000  # HowTo100M
TOKENS = 2_800_000_000  # English Wikipedia, in word pieces
WIDTH, RATES = 2048, {"2d": 1.0, "3d": 1.5}  # of the published features
SECONDS = HOURS * 3600 / VIDEOS  # of a video
CAPTION_SECONDS, CAPTION_WORDS = SECONDS * VIDEOS / CAPTIONS, 9
PARAGRAPHS = 100_000  # in a file of text
SHARD_VIDEOS = round(2**30 / (SECONDS * sum(RATES.values()) * WIDTH * 2))


def video_id(number: int) -> str:
    """Eleven characters, as YouTube's."""
    return urlsafe_b64encode(hashlib.blake2b(str(number).encode(), digest_size=9).digest())[:11].decode()


def read_lines(paths: list[Path]) -> list[str]:
    lines = []
    for path in paths:
        opened = lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8")
        with opened as file:
            lines += [line.strip() for line in file if line.strip()]
    return lines


def durations(videos: int) -> np.ndarray:
    """Whole seconds; the mean is HowTo100M's."""
    return np.random.default_rng(0).gamma(2.5, (SECONDS - 30) / 2.5, videos).astype(int) + 30


def write_features(folder: Path, seconds: np.ndarray, width: int, sparse: bool) -> None:
    noise = np.random.default_rng(1).standard_normal((8192, width)).astype(np.float16)
    for number, length in enumerate(seconds.tolist()):
        name = video_id(number)
        for stream, rate in RATES.items():
            path = folder / stream / name[:2] / f"{name}.mp4.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = max(1, int(length * rate))
            with open(path, "wb") as file:
                header = {"descr": "<f2", "fortran_order": False, "shape": (rows, width)}
                np.lib.format.write_array_header_1_0(file, header)
                if sparse:
                    file.truncate(file.tell() + rows * width * 2)
                else:
                    file.write(noise[np.arange(number, number + rows) % len(noise)].tobytes())


def write_captions(path: Path, seconds: np.ndarray, words: list[str]) -> int:
    rng, count = np.random.default_rng(2), 0
    with open(path, "w", encoding="utf-8") as file:
        for number, length in enumerate(seconds.tolist()):
            starts = np.arange(0, length - 2, CAPTION_SECONDS).round(2)
            firsts = rng.integers(0, len(words) - 2 * CAPTION_WORDS, len(starts)).tolist()
            sizes = rng.integers(CAPTION_WORDS - 4, CAPTION_WORDS + 5, len(starts)).tolist()
            texts = [" ".join(words[first : first + size]) for first, size in zip(firsts, sizes)]
            ends = np.minimum(starts + CAPTION_SECONDS + 1, length).round(2)
            entry = {"start": starts.tolist(), "end": ends.tolist(), "text": texts}
            file.write(("{" if number == 0 else ", ") + f"{json.dumps(video_id(number))}: {json.dumps(entry)}")
            count += len(starts)
        file.write("}")
    return count


def paragraphs(lines: list[str], characters: int) -> Iterator[str]:
    rng = np.random.default_rng(3)
    while characters > 0:
        for index in rng.integers(0, len(lines), 1000).tolist():
            characters -= len(lines[index])
            yield lines[index]
            if characters <= 0:
                return


def write_text(folder: Path, lines: list[str], characters: int) -> int:
    folder.mkdir(parents=True)
    file, count = None, 0
    for line in paragraphs(lines, characters):
        if count % PARAGRAPHS == 0:
            if file is not None:
                file.close()
            file = open(folder / f"train-{count // PARAGRAPHS:04d}.txt", "w", encoding="utf-8")
        file.write(line + "\n")
        count += 1
    file.close()
    return count


def settings(folder: Path, width: int) -> dict:
    """Sections for the commands; paths are absolute."""
    made = folder.absolute()
    training = {"report_to": "none", "use_cpu": True, "logging_steps": 50, "save_total_limit": 1}
    return {
        "convert_howto100m": {
            "features_2d": f"{made}/2d", "features_3d": f"{made}/3d", "captions": f"{made}/caption.json",
            "output_dir": f"{made}/features", "width_2d": width, "width_3d": width,
            "shard_bytes": round(SHARD_VIDEOS * SECONDS * sum(RATES.values()) * width * 2),
        },
        "pretrain_teacher": {
            "features": f"{made}/features", "captions": f"{made}/features/captions.jsonl", "streaming": True,
            "tokenizer": f"{made}/tokenizer", "output_dir": f"{made}/teacher", "cache_dir": f"{made}/cache",
            "text_model": "tiny", "contrast": "infonce", "max_length": 128, "max_video_length": 64,
            "held_out_videos": 50, "per_device_train_batch_size": 8, "max_steps": 200, "save_steps": 100, **training,
        },
        "distill": {
            "teacher": f"{made}/teacher", "text": f"{made}/text", "output_dir": f"{made}/student",
            "cache_dir": f"{made}/cache", "student": "tiny", "objectives": {"crd": 1}, "held_out_text": 256,
            "per_device_train_batch_size": 8, "max_steps": 50, "warmup_steps": 10, "save_strategy": "no", **training,
        },
    }  # fmt: skip


def make_tree(folder: Path, fraction: Fraction, text: list[Path], width: int, sparse: bool, tokenizer: Path | None):
    """Makes a tree, unless it is complete; returns the content of `tree.json`, which is written last."""
    if (folder / "tree.json").exists():
        return json.loads((folder / "tree.json").read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = read_lines(text)
    if tokenizer is None:
        from alignment import train_wordpiece

        train_wordpiece(lines).save_pretrained(folder / "tokenizer")
    else:
        shutil.copytree(tokenizer, folder / "tokenizer")
    seconds = durations(max(100, round(VIDEOS * fraction)))
    write_features(folder, seconds, width, sparse)
    captions = write_captions(folder / "caption.json", seconds, " ".join(lines).split())
    tokens = round(TOKENS * fraction)
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")).encode_batch
    sample = list(paragraphs(lines, 200_000))
    per_token = sum(map(len, sample)) / sum(len(found.ids) for found in encode(sample, add_special_tokens=False))
    written = write_text(folder / "text", lines, round(tokens * per_token))
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings(folder, width), sort_keys=False))
    about = {
        "fraction": str(fraction), "videos": len(seconds), "hours": float(seconds.sum() / 3600), "captions": captions,
        "tokens": tokens, "paragraphs": written, "width": width, "sparse": sparse,
    }  # fmt: skip
    (folder / "tree.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=Fraction, required=True, help="such as 1/1000")
    parser.add_argument(
        "--text", type=Path, nargs="+", required=True, help="text files (.txt, .txt.xz) to take words from"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to create; a complete one is kept")
    parser.add_argument("--width", type=int, default=8, help="width of both streams")
    parser.add_argument(
        "--sparse", action="store_true", help="feature files of holes; needs --width 2048 to be as large"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder to copy; default: one is trained on --text")
    args = parser.parse_args()
    print(json.dumps(make_tree(args.output_dir, args.fraction, args.text, args.width, args.sparse, args.tokenizer)))


if __name__ == "__main__":
    main()
