"""Random damage to every kind of file that is read from outside: a clear error or a value, never a crash or a hang."""

import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from safetensors import SafetensorError
from small_runs import forked, wait

from vidlankd_hf.checkpoints import fault, seal
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.shards import FeatureStore, ShardWriter
from vidlankd_hf.data.text_blocks import TextBlocks, load_text
from vidlankd_hf.extraction.decode import VideoReader

CLEAR = (ValueError, FileNotFoundError, KeyError, OSError, SafetensorError)
SECONDS_A_FILE = 20  # for one damaged file; longer is a hang


def video(folder: Path) -> None:
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in range(20, 220, 20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), "rgb24")))
        container.mux(stream.encode())


def features(folder: Path) -> None:
    writer = ShardWriter(folder, {"frame": {"model": "m", "rate": 1.0, "clip_length": 1}})
    writer.add("a", 3.0, {"frame": (torch.ones(3, 4), torch.tensor([0.5, 1.5, 2.5]))})
    writer.close()


def read_features(folder: Path) -> None:
    store = FeatureStore(folder)
    store.verify()
    for name in store.video_ids:
        store.read(name)


def blocks(folder: Path) -> None:
    np.save(folder / "blocks.npy", np.zeros((4, 6), np.uint16))
    (folder / "info.json").write_text(json.dumps({"blocks": 4, "tokens": 24, "block_tokens": 6, "left_over": 0}))


def checkpoint(folder: Path) -> None:
    (folder / "a.json").write_text("{}")
    torch.save({"a": torch.ones(3)}, folder / "a.pt")
    seal(folder)


def captions(folder: Path) -> None:
    rows = [{"video": "v", "start": i, "end": i + 1, "text": "a word ü"} for i in range(5)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def text(folder: Path) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(5)))


KINDS: dict[str, tuple[Callable, Callable]] = {  # what makes a good one, what reads it
    "captions": (captions, lambda folder: read_captions(folder / "captions.jsonl")),
    "features": (features, read_features),
    "blocks": (blocks, lambda folder: [b["input_ids"].sum() for b in map(TextBlocks(folder).__getitem__, range(4))]),
    "checkpoint": (checkpoint, fault),
    "text": (text, lambda folder: load_text(str(folder)).to_list()),
    "video": (video, lambda folder: list(VideoReader(folder / "video.mp4").sample([1]))),
}


def damaged(good: Path, folder: Path, chance: random.Random) -> None:
    """A copy with one file changed: bits turned, cut, doubled, bytes or numbers put in."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    path = chance.choice(sorted(p for p in folder.iterdir() if p.is_file()))
    content = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0 if place < len(content):
                content[place] ^= 1 << chance.randrange(8)
            case 1:
                del content[place : place + chance.randrange(1, 40)]
            case 2:
                content[place:place] = content[: chance.randrange(1, 40)]
            case 3:
                content[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 4:
                content[place:place] = chance.choice([b"-1", b"null", b"9" * 30, b"1e999", b"NaN", b"{}", b"[", b'"'])
    path.write_bytes(content)


def drill(work: Path, seconds: int) -> Iterator[tuple[bool, int]]:
    """Every kind gets its share of the time, in a process that is begun again if it dies or hangs."""
    for kind, (make, _) in KINDS.items():
        good = work / f"fuzz-{kind}"
        good.mkdir()
        make(good)
        until, survived, begin = time.monotonic() + seconds / len(KINDS), True, 0
        while time.monotonic() < until:
            log = work / f"fuzz-{kind}-{begin}.txt"
            pid = forked(lambda kind=kind, begin=begin, until=until: attack(work, kind, begin, until), log)
            code = wait(pid, until - time.monotonic() + SECONDS_A_FILE)
            tried = log.read_text().splitlines()
            begin += 1_000_000
            if code != 0:
                survived = False
                print(f"fuzz {kind}: ended with {code}; {tried[-1:]}", flush=True)
                break
            print(f"fuzz {kind}: {tried[-1]}", flush=True)
        yield survived, 0


def attack(work: Path, kind: str, begin: int, until: float) -> None:
    read, counts, number = KINDS[kind][1], Counter(), begin
    sys.stderr = sys.stdout
    av.logging.set_level(None)
    while time.monotonic() < until:
        chance, folder = random.Random(number), work / f"fuzz-{kind}-damaged"
        damaged(work / f"fuzz-{kind}", folder, chance)
        try:
            read(folder)
            counts["read"] += 1
        except CLEAR as error:
            counts[type(error).__name__] += 1
        except Exception as error:
            print(f"seed {number}: {type(error).__name__}: {error}", flush=True)
            raise SystemExit(3) from error
        number += 1
    print(f"{number - begin} files: {dict(counts)}", flush=True)
