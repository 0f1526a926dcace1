"""Fuzzing: randomly damaged input files must give a clear error or a value, never a crash or a hang.

make fuzz                                       ten minutes per kind of file; finished kinds are kept
python tests/drills/fuzz.py --kinds srt vtt --seconds 60
"""

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from safetensors import SafetensorError
from small_runs import ROOT, forked, wait, write_checkpoint_files

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.cli import read_config
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore, ShardWriter
from vidlankd_hf.data.text_blocks import TextBlocks, load_text
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.evaluation.task import Task
from vidlankd_hf.extraction.decode import VideoReader
from vidlankd_hf.reliability.manifest import Layout, seal, verify_checkpoint

CLEAR = (ValueError, OSError, SafetensorError)
SECONDS_A_FILE = 20  # limit for reading one damaged file


def video(folder: Path) -> None:
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in range(20, 220, 20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), "rgb24")))
        container.mux(stream.encode())


def read_video(folder: Path) -> None:
    try:
        list(VideoReader(folder / "video.mp4").sample([1]))
    except MemoryError as error:  # an invalid frame size; a decoding process reports it
        raise ValueError("out of memory") from error


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
    write_checkpoint_files(folder)
    seal(folder, Layout())


def captions(folder: Path) -> None:
    rows = [{"video": "v", "start": i, "end": i + 1, "text": "a word ü"} for i in range(5)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def srt(folder: Path) -> None:
    cues = [f"{i}\n00:00:0{i},000 --> 00:00:0{i + 1},500\n<i>a word</i> &amp; ü\nmore\n" for i in range(1, 6)]
    (folder / "v.srt").write_text("\n".join(cues))


def vtt(folder: Path) -> None:
    cues = [f"00:0{i}.000 --> 00:0{i + 1}.500 align:start\na<00:0{i}.400><c> word</c>\n" for i in range(1, 6)]
    (folder / "v.en.vtt").write_text("WEBVTT\n\nNOTE by hand\n\n" + "\n".join(cues))


def howto100m_json(folder: Path) -> None:
    lines = {"start": [0.5, 2, 3], "end": [2.5, 3, 4.5], "text": ["cut the", "the bread", "ü"]}
    (folder / "caption.json").write_text(json.dumps({"x1": lines, "x2": lines}))


def howto100m_csv(folder: Path) -> None:
    (folder / "x1.csv").write_text('start,end,text\n0.5,2.5,cut the\n2,3,"the bread, ü"\n')


def activitynet(folder: Path) -> None:
    entry = {"duration": 9.5, "timestamps": [[0, 2.5], [2, 9.5]], "sentences": ["A man walks.", "He sits. ü"]}
    (folder / "train.json").write_text(json.dumps({"v_1": entry, "v_2": entry}))


def youcook2(folder: Path) -> None:
    entry = {"duration": 9.5, "subset": "training", "annotations": [{"segment": [1, 4], "id": 0, "sentence": "cut"}]}
    (folder / "y.json").write_text(json.dumps({"database": {"a": entry, "b": entry}}))


def msvd(folder: Path) -> None:
    (folder / "annotations.txt").write_text("".join(f"v{i % 2}\ta man sings {i} ü\n" for i in range(5)))


def read_captions_of(folder: Path) -> None:
    for path in folder.iterdir():
        read_captions(path)


def config(folder: Path) -> None:
    shutil.copy(ROOT / "examples" / "recipes" / "small.yaml", folder)


def downstream(folder: Path) -> None:
    from downstream_data import make_data  # importable after small_runs has added its folder to sys.path

    make_data(folder)


def read_downstream(folder: Path) -> None:
    """Reads every split of every task, also after an error in one of them."""
    errors = []
    for task in TASKS.values():
        for split in task.files:
            try:
                read_rows(task, str(folder), split) if isinstance(task, Task) else task.items(folder, split)
            except FileNotFoundError:
                continue  # the grounded world's task, and test splits without a file
            except CLEAR as error:
                errors.append(error)
    if errors:
        raise errors[0]


def text(folder: Path) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(5)))


KINDS: dict[str, tuple[Callable, Callable]] = {  # function that writes a valid file, function that reads it
    "captions": (captions, read_captions_of),
    "srt": (srt, read_captions_of),
    "vtt": (vtt, read_captions_of),
    "howto100m_json": (howto100m_json, read_captions_of),
    "howto100m_csv": (howto100m_csv, read_captions_of),
    "activitynet": (activitynet, read_captions_of),
    "youcook2": (youcook2, read_captions_of),
    "msvd": (msvd, read_captions_of),
    "features": (features, read_features),
    "blocks": (blocks, lambda folder: [b["input_ids"].sum() for b in map(TextBlocks(folder).__getitem__, range(4))]),
    "checkpoint": (checkpoint, verify_checkpoint),
    "text": (text, lambda folder: load_text(str(folder)).to_list()),
    "video": (video, read_video),
    "config": (config, lambda folder: read_config(next(folder.iterdir()), "distill")),
    "downstream": (downstream, read_downstream),
}


def damaged(good: Path, folder: Path, chance: random.Random) -> None:
    """Copies a folder and damages one file: flips bits, and deletes, repeats or inserts bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    path = chance.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
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
    """Fuzzes each kind of file for the same time."""
    for kind in KINDS:
        survived, counts = fuzz(work, kind, seconds / len(KINDS))
        print(f"fuzz {kind}: {counts}", flush=True)
        yield survived, 0


def fuzz(work: Path, kind: str, seconds: float) -> tuple[bool, dict]:
    """Damages and reads files of one kind in a separate process, which can crash or hang.

    Returns:
        Whether the process survived, and the number of files by outcome.
    """
    good = work / f"fuzz-{kind}"
    good.mkdir()
    KINDS[kind][0](good)
    log, until = work / f"fuzz-{kind}.txt", time.monotonic() + seconds
    code = wait(forked(lambda: attack(work, kind, until), log), seconds + SECONDS_A_FILE)
    said = log.read_text().splitlines()[-1:]
    return code == 0, json.loads(said[0]) if code == 0 else {"ended with": code, "said": said}


def attack(work: Path, kind: str, until: float) -> None:
    read, counts, number = KINDS[kind][1], Counter(), 0
    sys.stderr = sys.stdout
    av.logging.set_level(None)
    logging.disable()
    while time.monotonic() < until:
        folder = work / f"fuzz-{kind}-damaged"
        damaged(work / f"fuzz-{kind}", folder, random.Random(number))
        try:
            signal.alarm(SECONDS_A_FILE)  # ends the process
            read(folder)
            counts["read"] += 1
        except CLEAR as error:
            counts[type(error).__name__] += 1
        except Exception as error:
            print(f"seed {number}: {type(error).__name__}: {error}", flush=True)
            raise SystemExit(3) from error
        finally:
            signal.alarm(0)
        number += 1
    print(json.dumps(counts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="kinds (default: all)")
    parser.add_argument("--seconds", type=int, default=600, help="seconds per kind (default: 600)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/fuzz"), help="folder of the results")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    all_survived = True
    for kind in args.kinds:
        kept = args.output_dir / f"{kind}.json"
        if not kept.exists():
            with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
                survived, counts = fuzz(Path(work), kind, args.seconds)
            if not survived:
                print(f"{kind}: {counts}", flush=True)
                all_survived = False
                continue
            kept.write_text(json.dumps({"seconds": args.seconds, "counts": counts}) + "\n")
        print(f"{kind}: {json.loads(kept.read_text())}", flush=True)
    raise SystemExit(not all_survived)


if __name__ == "__main__":
    main()
