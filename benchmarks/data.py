"""Benchmarks the data path on synthetic data; each measurement alternates with its baseline.

    OMP_NUM_THREADS=1 python benchmarks/data.py --output_dir outputs/data_benchmark

Measurements:
  reads    random windows from shards (fp16), compared with a .npy file per video, padded to 384 x 4096 in fp32 and
           read completely for each window: time and bytes per example, with and without the files in the page cache
  masks    collating and masking blocks of 128 tokens: TextCollator, compared with DataCollatorForLanguageModeling
  loader   batches of load_video_text(streaming=True) with two idle workers, compared with a training step of a teacher
  memory   PSS (proportional set size) of the main process and of two workers of that loader, on a data set and on one
           50 times as large; also without streaming

With the default sizes, it needs about 1.5 GB in --work_dir (default: a temporary folder).
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
from measuring import describe_machine
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
from vidlankd_hf.models.configuration import video_config_like
from vidlankd_hf.training.sampler import EpochDataset, EpochSampler

VOCABULARY, BLOCK, STEPS, WIDTH = 30_522, 126, 384, 4096
WORKERS = 2


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def write_videos(folder: Path, videos: int, width: int, shard_bytes: int, padded: Path | None = None) -> Path:
    """Writes features of two streams, at 1 and 1.5 per second for 2 to 11 minutes, and a 10-word caption every 4 s."""
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
    """Asks the system to drop a folder's files from the page cache."""
    os.sync()
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def remember(folder: Path) -> None:
    """Reads a folder's files into the page cache."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            while file.read(2**24):
                pass


def disk_bytes() -> int:
    """Bytes fetched from the disk on behalf of this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def measure_reads(folder: Path, padded: Path, examples: int, rounds: int) -> list[dict]:
    rng = np.random.default_rng(1)
    durations = FeatureStore(folder / "features")
    results: dict[tuple, list] = {}
    for number in range(2 * rounds):
        cold = number % 2 == 0
        videos = rng.choice(durations.video_ids, examples)
        spans = [(v, s, s + 48) for v in videos for s in [float(rng.uniform(0, durations.duration(v) - 48))]]
        store = FeatureStore(folder / "features")
        for files in (folder / "features", padded):
            forget(files) if cold else remember(files)
        for method in ("shards", "padded .npy"):
            size, fetched, start = 0, disk_bytes(), time.perf_counter()
            for video, begin, end in spans:
                if method == "shards":
                    read = store.read(video, begin, end)[0]
                else:
                    read = torch.from_numpy(np.load(padded / f"{video}.npy", allow_pickle=False))
                read.view(torch.uint8).amax()  # reads all of it into memory
                size += read.nbytes
            seconds = time.perf_counter() - start
            kind = method, "disk" if cold else "page cache"
            results.setdefault(kind, []).append((seconds, size, disk_bytes() - fetched))
    return [
        {
            "method": method, "from": place, "ms": 1000 * median(r[0] for r in rows) / examples,
            "bytes": median(r[1] for r in rows) / examples, "disk_bytes": median(r[2] for r in rows) / examples,
        }
        for (method, place), rows in results.items()
    ]  # fmt: skip


# ---- masks ----


def measure_masks(tokenizer, batch: int, rounds: int) -> dict[str, float]:
    """CPU microseconds per block of 128 tokens."""
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


def open_data(folder: Path, tokenizer, streaming: bool = True):
    cache = folder / "cache"
    return load_video_text(
        folder / "features", folder / "captions.jsonl", tokenizer, seed=0, streaming=streaming, cache_dir=cache
    )


def load_batches(dataset, tokenizer, batch: int) -> DataLoader:
    collator = VideoTextCollator(tokenizer, check_negatives=False)
    dataset = EpochDataset(dataset)
    sampler = EpochSampler(len(dataset), 1, seed=0, shard_sizes=dataset.shard_sizes)
    return DataLoader(dataset, batch, sampler=sampler, num_workers=WORKERS, collate_fn=collator)


def measure_loader(folder: Path, tokenizer, batch: int, batches: int, steps: int, size: str) -> dict[str, float]:
    """Seconds per batch of the loader alone, and per training step on one of its batches."""
    stream = open_data(folder, tokenizer)
    loader, taken = iter(load_batches(stream, tokenizer, batch)), []
    for _ in range(batches + WORKERS * 2):  # batches prefetched before the first request do not count
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
    """Proportional set size in bytes: memory shared by n processes counts 1/n in each."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def report_memory(folder: Path, streaming: bool, batch: int, batches: int) -> None:
    """Prints the peak PSS of main process and workers in bytes; runs in a process of `measure_memory`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder.parent / "tokenizer", trust_remote_code=False)
    loader = iter(load_batches(open_data(folder, tokenizer, streaming), tokenizer, batch))
    peak = {"main": 0, "worker": 0}
    for number in range(batches):
        if next(loader, None) is None:
            break
        if number % 5 == 4:
            peak["main"] = max(peak["main"], pss(os.getpid()))
            peak["worker"] = max(peak["worker"], *(pss(worker.pid) for worker in loader._workers))
    peak["max_rss"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("MEMORY", json.dumps(peak), flush=True)


def measure_memory(folders: dict[str, Path], batch: int, batches: int) -> list[dict]:
    rows = []
    for name, folder in folders.items():
        for method in ("streaming", "in memory"):
            command = [sys.executable, __file__, "--memory_of", str(folder), "--method", method]
            command += ["--batch", str(batch), "--batches", str(batches)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"{' '.join(command)}: {run.stderr[-2000:]}")
            line = next(line for line in run.stdout.splitlines() if line.startswith("MEMORY"))
            rows.append({"method": method, "data": name, **json.loads(line.removeprefix("MEMORY"))})
    return rows


# ---- results ----


def table_of(results: dict) -> str:
    lines = ["| measurement | ours | baseline | ratio | target |", "|---|---|---|---|---|"]
    reads = {(row["method"], row["from"]): row for row in results["reads"]}
    for place in ("page cache", "disk"):
        ours, theirs = reads["shards", place], reads["padded .npy", place]
        ratio = theirs["ms"] / ours["ms"]
        lines.append(f"| read, {place} | {ours['ms']:.2f} ms | {theirs['ms']:.2f} ms | {ratio:.1f}x | 10x |")
    ratio = theirs["bytes"] / ours["bytes"]
    lines.append(
        f"| bytes per read | {ours['bytes'] / 1e6:.2f} MB | {theirs['bytes'] / 1e6:.2f} MB | {ratio:.1f}x | 10x |"
    )
    masks, loader = results["masks"], results["loader"]
    ratio = masks["stock"] / masks["ours"]
    lines.append(
        f"| collate and mask, per block | {masks['ours']:.1f} us | {masks['stock']:.1f} us | {ratio:.1f}x | <= 10 us |"
    )
    ratio = loader["step"] / loader["loader"]
    lines.append(f"| batch | {1000 * loader['loader']:.0f} ms | {loader['step']:.2f} s per step | {ratio:.1f}x | 5x |")
    memory = {(row["method"], row["data"]): row for row in results["memory"]}
    for method in ("streaming", "in memory"):
        for part in ("main", "worker"):
            one, many = (memory[method, data][part] for data in ("1x", "50x"))
            target = "1.0x" if method == "streaming" else ""
            sizes = f"{many / 1e6:.0f} MB | {one / 1e6:.0f} MB | {many / one:.2f}x"
            lines.append(f"| memory, {method}, {part}, 50x and 1x data | {sizes} | {target} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {
        "videos": (100, "videos with 4096-wide features"),
        "small_videos": (60, "videos of the smaller data set for memory, with 64-wide features"),
        "examples": (100, "reads per round"),
        "rounds": (5, "rounds of each measurement"),
        "batch": (32, "batch size"),
        "blocks": (128, "blocks collated and masked at a time"),
        "batches": (60, "batches per loader, at most"),
        "steps": (3, "training steps"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--size", default="small", help="size of the teacher (default: small)")
    parser.add_argument("--work_dir", type=Path, help="parent folder of the synthetic data (default: the system's)")
    parser.add_argument("--output_dir", type=Path, help="folder for data.json and data.md (default: only print)")
    parser.add_argument("--memory_of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        report_memory(args.memory_of, args.method == "streaming", args.batch, args.batches)
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
            open_data(folders[name], tokenizer)
        sets = {name: folders[name] for name in ("1x", "50x")}
        results["memory"] = measure_memory(sets, args.batch, args.batches)
    table = table_of(results)
    print(table)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        (args.output_dir / "data.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.output_dir / "data.md").write_text(table + "\n")
        print(f"Wrote data.json and data.md to {args.output_dir}.")


if __name__ == "__main__":
    main()
