"""Times the data path on synthetic data, each measure beside what it is compared with, in turn in one run.

    OMP_NUM_THREADS=1 python benchmarks/data.py --output_dir outputs/data_benchmark

Measures:
  reads    random windows from shards (fp16) against one .npy a video padded to 384 x 4096 in fp32, of which a window
           needs the whole: time and bytes an example, with the files in the page cache and not in it
  masks    collating and masking blocks of 128 tokens: TextCollator against DataCollatorForLanguageModeling
  loader   batches of a stream, two workers, nothing else running, against the time of a teacher's training step
  memory   of a stream's loader (PSS of the main process and of its two workers) on a data set and on one 50 times as
           large; the map-style data set beside it

About 1.5 GB below --work_dir (default: a temporary folder) at the defaults.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from step import describe_machine
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from vidlankd_hf import (
    TextCollator,
    VideoTextCollator,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    bert_config,
    load_video_text,
)
from vidlankd_hf.data.features import FeatureStore, ShardWriter
from vidlankd_hf.models.teacher import video_config_like
from vidlankd_hf.training.sampler import EpochDataset

VOCABULARY, BLOCK, STEPS, WIDTH = 30_522, 126, 384, 4096
WORKERS = 2


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def write_videos(folder: Path, videos: int, width: int, shard_bytes: int, padded: Path | None = None) -> Path:
    """Features of two streams at 1 and 1.5 a second, of 2 to 11 minutes, and a line of 10 words each four seconds."""
    rng = np.random.default_rng(0)
    rates = {"frame": 1.0, "clip": 1.5}
    settings = {name: {"model": "none", "rate": rate, "clip_length": 1} for name, rate in rates.items()}
    writer = ShardWriter(folder / "features", settings, shard_bytes)
    noise = torch.from_numpy(rng.normal(size=(1200, width // 2)).astype(np.float16))
    with open(folder / "captions.jsonl", "w") as captions:
        for number in range(videos):
            seconds = int(rng.integers(120, 660))
            streams = {}
            for name, rate in rates.items():
                count = int(seconds * rate)
                streams[name] = noise[(torch.arange(count) + number) % 1200], (torch.arange(count) + 0.5) / rate
            writer.add(f"v{number:06d}", seconds, streams)
            for start in range(0, seconds - 4, 4):
                text = " ".join(f"w{i}" for i in rng.integers(0, VOCABULARY - 5, 10))
                row = {"video": f"v{number:06d}", "start": start, "end": start + 4, "text": text}
                captions.write(json.dumps(row) + "\n")
            if padded is not None:
                array = np.zeros((STEPS, width), np.float32)
                array[: min(seconds, STEPS), : width // 2] = streams["frame"][0][:STEPS].numpy()
                np.save(padded / f"v{number:06d}.npy", array)
    writer.close()
    return folder


# ---- reads ----


def forget(folder: Path) -> None:
    """Takes a folder's files out of the page cache, as far as the system does what it is told."""
    os.sync()
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def remember(folder: Path) -> None:
    """Reads a folder's files, so that they are in the page cache."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            while file.read(2**24):
                pass


def disk_bytes() -> int:
    """Bytes that this process has caused to be fetched from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def measure_reads(folder: Path, padded: Path, examples: int, rounds: int) -> list[dict]:
    rng = np.random.default_rng(1)
    durations = FeatureStore(folder / "features")
    results: dict[tuple, list] = {}
    for turn in range(2 * rounds):
        cold = turn % 2 == 0
        videos = rng.choice(durations.video_ids, examples)
        spans = [(v, s, s + 48) for v in videos for s in [float(rng.uniform(0, durations.duration(v) - 48))]]
        store = FeatureStore(folder / "features")
        for files in (folder / "features", padded):
            forget(files) if cold else remember(files)
        for way in ("shards", "padded .npy"):
            size, fetched, start = 0, disk_bytes(), time.perf_counter()
            for video, begin, end in spans:
                if way == "shards":
                    read = store.read(video, begin, end)[0]
                else:
                    read = torch.from_numpy(np.load(padded / f"{video}.npy", allow_pickle=False))
                read.view(torch.uint8).amax()  # all of it is in memory
                size += read.nbytes
            seconds = time.perf_counter() - start
            kind = way, "disk" if cold else "page cache"
            results.setdefault(kind, []).append((seconds, size, disk_bytes() - fetched))
    return [
        {
            "way": way, "from": place, "ms": 1000 * median(r[0] for r in rows) / examples,
            "bytes": median(r[1] for r in rows) / examples, "disk_bytes": median(r[2] for r in rows) / examples,
        }
        for (way, place), rows in results.items()
    ]  # fmt: skip


# ---- masks ----


def measure_masks(tokenizer, batch: int, rounds: int) -> dict[str, float]:
    """Microseconds of a core for a block of 128 tokens."""
    rng = np.random.default_rng(2)
    blocks = rng.integers(5, VOCABULARY, (batch, BLOCK)).astype(np.uint16)
    rows = EpochDataset([{"input_ids": block} for block in blocks])
    stock_rows = [{"input_ids": [2, *block.tolist(), 3]} for block in blocks]
    ours, stock = TextCollator(tokenizer), DataCollatorForLanguageModeling(tokenizer)
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    samples = rows.__getitems__(list(range(batch)))
    for _ in range(rounds):
        for name, work in (("ours", lambda: ours(samples)), ("stock", lambda: stock(stock_rows))):
            start = time.process_time()
            work()
            times[name].append(1e6 * (time.process_time() - start) / batch)
    return {name: median(values) for name, values in times.items()}


# ---- loader ----


def open_stream(folder: Path, tokenizer, streaming: bool = True):
    cache = folder / "cache"
    return load_video_text(
        folder / "features", folder / "captions.jsonl", tokenizer, seed=0, streaming=streaming, cache_dir=cache
    )


def load_batches(dataset, tokenizer, batch: int, streaming: bool = True) -> DataLoader:
    collator = VideoTextCollator(tokenizer, check_negatives=False)
    if streaming:
        return DataLoader(dataset.take_turns(batch), batch, num_workers=WORKERS, collate_fn=collator)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    return DataLoader(EpochDataset(dataset), batch, sampler=order, num_workers=WORKERS, collate_fn=collator)


def measure_loader(folder: Path, tokenizer, batch: int, batches: int, steps: int, size: str) -> dict[str, float]:
    """Seconds of a batch from the loader alone, and of a training step on one."""
    stream = open_stream(folder, tokenizer)
    loader, taken, start = iter(load_batches(stream, tokenizer, batch)), [], None
    for _ in range(batches + WORKERS * 2):  # what was prefetched while nobody took it does not count
        one = next(loader, None)
        if one is None:
            break
        taken.append(time.perf_counter())
    del loader
    start = min(WORKERS * 2, len(taken) // 2)
    per_batch = (taken[-1] - taken[start]) / (len(taken) - 1 - start)

    torch.manual_seed(0)
    text = bert_config(size, tokenizer)
    video = video_config_like(text, stream.feature_size)
    teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video)).train()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-4, fused=True)
    data = next(iter(load_batches(stream, tokenizer, batch)))
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        sum(teacher(**data).losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return {"loader": per_batch, "step": median(times[1:]), "batches": len(taken)}


# ---- memory ----


def pss(process: int) -> int:
    """Proportional set size in bytes: what is shared by n processes counts 1/n in each."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def report_memory(folder: Path, streaming: bool, batch: int, batches: int) -> None:
    """What the process of `measure_memory` prints: the most of main process and workers, in bytes."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder.parent / "tokenizer")
    loader = iter(load_batches(open_stream(folder, tokenizer, streaming), tokenizer, batch, streaming))
    most = {"main": 0, "worker": 0}
    for number in range(batches):
        if next(loader, None) is None:
            break
        if number % 5 == 4:
            most["main"] = max(most["main"], pss(os.getpid()))
            most["worker"] = max(most["worker"], *(pss(worker.pid) for worker in loader._workers))
    most["max_rss"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("MEMORY", json.dumps(most), flush=True)


def measure_memory(folders: dict[str, Path], batch: int, batches: int) -> list[dict]:
    rows = []
    for name, folder in folders.items():
        for way in ("stream", "map-style"):
            command = [sys.executable, __file__, "--memory_of", str(folder), "--way", way]
            command += ["--batch", str(batch), "--batches", str(batches)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"{' '.join(command)}: {run.stderr[-2000:]}")
            line = next(line for line in run.stdout.splitlines() if line.startswith("MEMORY"))
            rows.append({"way": way, "data": name, **json.loads(line.removeprefix("MEMORY"))})
    return rows


# ---- the whole ----


def table_of(results: dict) -> str:
    lines = ["| measure | ours | beside it | ratio | asked for |", "|---|---|---|---|---|"]
    reads = {(row["way"], row["from"]): row for row in results["reads"]}
    for place in ("page cache", "disk"):
        ours, theirs = reads["shards", place], reads["padded .npy", place]
        ratio = theirs["ms"] / ours["ms"]
        lines.append(f"| read, {place} | {ours['ms']:.2f} ms | {theirs['ms']:.2f} ms | {ratio:.1f}x | 10x |")
    ratio = theirs["bytes"] / ours["bytes"]
    lines.append(f"| bytes | {ours['bytes'] / 1e6:.2f} MB | {theirs['bytes'] / 1e6:.2f} MB | {ratio:.1f}x | 10x |")
    masks, loader = results["masks"], results["loader"]
    ratio = masks["stock"] / masks["ours"]
    lines.append(f"| collate a block | {masks['ours']:.1f} us | {masks['stock']:.1f} us | {ratio:.1f}x | <= 10 us |")
    ratio = loader["step"] / loader["loader"]
    lines.append(f"| a batch | {1000 * loader['loader']:.0f} ms | {loader['step']:.2f} s a step | {ratio:.1f}x | 5x |")
    memory = {(row["way"], row["data"]): row for row in results["memory"]}
    for way in ("stream", "map-style"):
        for part in ("main", "worker"):
            one, many = (memory[way, data][part] for data in ("1x", "50x"))
            asked = "1.0x" if way == "stream" else ""
            sizes = f"{many / 1e6:.0f} MB | {one / 1e6:.0f} MB | {many / one:.2f}x"
            lines.append(f"| {way}, {part}, 50x and 1x data | {sizes} | {asked} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100, help="of 4096 wide features (default: %(default)s)")
    parser.add_argument("--small_videos", type=int, default=60, help="of the 1x set of the measure of memory, 64 wide")
    parser.add_argument("--examples", type=int, default=100, help="reads of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--blocks", type=int, default=128, help="collated and masked at a time (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=60, help="taken from a loader, at most (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="of training (default: %(default)s)")
    parser.add_argument("--size", default="small", help="of the teacher (default: %(default)s)")
    parser.add_argument("--work_dir", type=Path, help="for the synthetic data; default: a temporary folder")
    parser.add_argument("--output_dir", type=Path, help="for data.json and data.md; default: only print")
    parser.add_argument("--memory_of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        report_memory(args.memory_of, args.way == "stream", args.batch, args.batches)
        return
    with tempfile.TemporaryDirectory(dir=args.work_dir) as work:
        folders = {name: Path(work) / name for name in ("large", "padded", "1x", "50x")}
        for folder in folders.values():
            folder.mkdir()
        tokenizer = make_tokenizer()
        tokenizer.save_pretrained(Path(work) / "tokenizer")
        results: dict = {"command": " ".join(sys.argv), "machine": describe_machine("cpu")}
        results["masks"] = measure_masks(tokenizer, args.blocks, 40 * args.rounds)
        write_videos(folders["large"], args.videos, WIDTH, 256 * 2**20, padded=folders["padded"])
        results["reads"] = measure_reads(folders["large"], folders["padded"], args.examples, args.rounds)
        results["loader"] = measure_loader(
            folders["large"], tokenizer, args.batch, args.batches, args.steps, args.size
        )
        for name, times in (("1x", 1), ("50x", 50)):
            write_videos(folders[name], args.small_videos * times, 64, 2**20)
            open_stream(folders[name], tokenizer)
        sets = {name: folders[name] for name in ("1x", "50x")}
        results["memory"] = measure_memory(sets, args.batch, args.batches)
    table = table_of(results)
    print(table)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        (args.output_dir / "data.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.output_dir / "data.md").write_text(table + "\n")
        print(f"Written: {args.output_dir}/data.json, data.md")


if __name__ == "__main__":
    main()
