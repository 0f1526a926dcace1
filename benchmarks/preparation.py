"""Benchmarks the preparation of captions, text and HowTo100M's features by one and by several processes.

    OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false python benchmarks/preparation.py --text my_text.txt.xz \
        --output_dir outputs/preparation_benchmark

Captions are pieces of the text, ten words each; features are random numbers. CPU time is measured, since other
processes change it least: that of this process, and that of its workers. The efficiency of N workers is the CPU time
of one process divided by N times the time that N workers need at least: this process's share, which may run next to
them, is added. Conversion is compared with `cp`, in turns.
"""

import argparse
import json
import lzma
import resource
import shutil
import subprocess
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
import torch
from alignment import train_wordpiece
from datasets import disable_progress_bars
from measuring import describe_machine

from vidlankd_hf import load_text_blocks, load_video_text
from vidlankd_hf.data import caption_parts, token_tasks
from vidlankd_hf.data.features import ShardWriter
from vidlankd_hf.data.howto100m import convert_howto100m

WORDS, CAPTIONS, VIDEOS_PER_SHARD = 10, 110, 50  # HowTo100M: captions of a video, and videos of 20 MB in a shard


def measured(work) -> dict[str, float]:
    """CPU seconds of this process and of its workers, and seconds."""
    kinds, began = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN), time.perf_counter()
    before = [resource.getrusage(kind) for kind in kinds]
    work()
    after = [resource.getrusage(kind) for kind in kinds]
    own, workers = (b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after))
    return {"own": own, "workers": workers, "seconds": time.perf_counter() - began}


def write_captioned_videos(lines: list[str], folder: Path, captions: int) -> None:
    words = " ".join(lines).split()
    writer = ShardWriter(folder / "features", {"frame": {"model": "none", "rate": 1.0, "clip_length": 1}},
                         shard_bytes=VIDEOS_PER_SHARD * CAPTIONS * 4 * 8)  # fmt: skip
    times = torch.arange(4 * CAPTIONS) + 0.5
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
        for number in range(captions // CAPTIONS):
            video = f"video{number:07d}"
            writer.add(video, 4.0 * CAPTIONS, {"frame": (torch.zeros(len(times), 2), times)})
            for i in range(CAPTIONS):
                begin = (number * CAPTIONS + i) * WORDS % (len(words) - WORDS)
                row = {
                    "video": video,
                    "start": 4 * i,
                    "end": 4 * i + 4,
                    "text": " ".join(words[begin : begin + WORDS]),
                }
                file.write(json.dumps(row) + "\n")
    writer.close()


def write_howto100m(lines: list[str], folder: Path, videos: int) -> None:
    words, rng, captions = " ".join(lines).split(), np.random.default_rng(0), {}
    for number in range(videos):
        seconds = int(rng.integers(200, 600))
        for name, rate in (("2d", 1.0), ("3d", 1.5)):
            (folder / name).mkdir(exist_ok=True)
            values = rng.standard_normal((int(seconds * rate), 2048), dtype=np.float32).astype(np.float16)
            np.save(folder / name / f"video{number}.npy", values)
        starts = list(range(0, seconds, 4))
        texts = [" ".join(words[(number + i) * WORDS % 9000 :][: 2 * WORDS]) for i in range(len(starts))]
        captions[f"video{number}"] = {"start": starts, "end": [start + 5 for start in starts], "text": texts}
    (folder / "caption.json").write_text(json.dumps(captions))


def summary(amount: float, runs: dict[int, list[dict]]) -> dict:
    """Amount per CPU second for each number of processes, and their efficiency."""
    found: dict = {"amount": amount}
    alone = median(run["own"] + run["workers"] for run in runs[1])
    for processes, of_processes in runs.items():
        own, workers = (median(run[name] for run in of_processes) for name in ("own", "workers"))
        needed = own + workers / processes if processes > 1 else alone
        found[str(processes)] = {
            "per_cpu_second": amount / (own + workers),
            "own_cpu_seconds": own,
            "workers_cpu_seconds": workers,
            "efficiency": alone / (processes * needed),
            "cpu_efficiency": alone / (own + workers),
            "seconds": median(run["seconds"] for run in of_processes),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=Path, nargs="+")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/preparation_benchmark"))
    parser.add_argument("--captions", type=int, default=200_000)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    disable_progress_bars()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in args.text:
        opened = lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8")
        with opened as file:
            lines += [line.strip() for line in file if line.strip()]
    tokenizer, folders = train_wordpiece(lines), count()
    caption_parts.PART_BYTES, token_tasks.TASK_CHARACTERS = 2**22, 2**20  # the data are smaller than HowTo100M
    found: dict = {"machine": describe_machine("cpu"), "arguments": {**vars(args), "text": len(lines)}}
    with tempfile.TemporaryDirectory(dir=args.output_dir) as name:
        work = Path(name)
        write_captioned_videos(lines, work, args.captions)
        (work / "text.txt").write_text("\n".join(lines))
        (work / "howto").mkdir()
        write_howto100m(lines, work / "howto", args.videos)
        source = [work / "howto" / kind for kind in ("2d", "3d")]
        size = sum(path.stat().st_size for folder in source for path in folder.iterdir())
        tokens = 0

        def captions(processes: int) -> None:
            options = {"streaming": True, "cache_dir": work / f"cache-{next(folders)}", "num_proc": processes}
            load_video_text(work / "features", work / "captions.jsonl", tokenizer, **options)

        def text(processes: int) -> None:
            nonlocal tokens
            blocks = load_text_blocks(work / "text.txt", tokenizer, work / f"{next(folders)}", num_proc=processes)
            tokens = blocks.info["tokens"]

        def conversion(processes: int) -> None:
            made = work / f"converted-{next(folders)}"
            convert_howto100m(*source, work / "howto" / "caption.json", made, shard_bytes=2**26, num_proc=processes)
            shutil.rmtree(made)

        def copy() -> None:
            subprocess.run(["cp", "-r", *map(str, source), str(work / "copied")], check=True)
            subprocess.run(["sync", "-f", str(work)], check=True)
            shutil.rmtree(work / "copied")

        jobs = {"captions": captions, "text": text, "conversion": conversion}
        runs: dict[str, dict[int, list[dict]]] = {job: {n: [] for n in args.processes} for job in jobs}
        copies = []
        for job in jobs.values():
            job(1)  # warm-up
        for _ in range(args.rounds):
            for job, function in jobs.items():
                for processes in args.processes:
                    runs[job][processes].append(measured(partial(function, processes)))
            (work / "copied").mkdir()
            copies.append(measured(copy))
        amounts = {"captions": args.captions // CAPTIONS * CAPTIONS, "text": tokens, "conversion": size}
        found |= {job: summary(amounts[job], runs[job]) for job in jobs}
        found["conversion"]["copy_seconds"] = median(run["seconds"] for run in copies)
    (args.output_dir / "preparation.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    print(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
