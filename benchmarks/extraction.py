"""Times extraction, compared with a plain loop over clips and with the backbones alone on prepared tensors.

    python benchmarks/extraction.py --videos DIR_OR_GLOB --precisions fp32 bf16 --output_json extraction.json
    python benchmarks/extraction.py --videos DIR_OR_GLOB --backbones tiny
    python benchmarks/extraction.py --memory

The plain loop is one process that reads one clip at a time with the models' own image processors, in fp32. The
prepared tensors are as many batches of random pixels on the device; their rate is the upper limit. Variants are
interleaved, and ratios are medians over rounds, each computed within its round.

Backbones are ResNet-152 and VideoMAE-base, as in the paper, or tiny ones, all with random weights. --memory writes
videos of 1 and 60 minutes and prints the peak resident memory of extracting each, for the process with the backbones
and for its decoding child.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
import psutil
import torch
from transformers import AutoImageProcessor, ResNetConfig, ResNetModel, VideoMAEConfig, VideoMAEModel

from vidlankd_hf.extraction.backbones import Backbone, pooled_output
from vidlankd_hf.extraction.child import Clips
from vidlankd_hf.extraction.decode import VideoReader
from vidlankd_hf.extraction.extract import Extraction
from vidlankd_hf.extraction.streams import Stream, paper_streams
from vidlankd_hf.extraction.tasks import ShardTask, read_part

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
NO_PIXELS = {"size": None, "crop": None}


def save_backbones(folder: Path, kind: str) -> list[Stream]:
    """Saves backbones with random weights and their image processors."""
    torch.manual_seed(0)
    if kind == "paper":
        frame = ResNetModel(ResNetConfig(depths=[3, 8, 36, 3]))
        clip = VideoMAEModel(VideoMAEConfig())
    else:
        frame = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
        clip = VideoMAEModel(VideoMAEConfig(image_size=112, patch_size=28, tubelet_size=8, **TINY))
    for name, weight in frame.named_parameters():  # otherwise the sums over 50 random blocks overflow float16
        if name.endswith("layer.2.normalization.weight"):
            weight.data.fill_(0.1)
    size = 224 if kind == "paper" else 112
    common = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
              "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}  # fmt: skip
    processors = {
        "frame": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": size},
                  "crop_pct": 0.875, "resample": 3},
        "clip": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": size}, "resample": 2,
                 "do_center_crop": True, "crop_size": {"height": size, "width": size}},
    }  # fmt: skip
    for name, model in (("frame", frame), ("clip", clip)):
        model.eval().save_pretrained(folder / name)
        (folder / name / "preprocessor_config.json").write_text(json.dumps({**common, **processors[name]}))
    return paper_streams(str(folder / "frame"), str(folder / "clip"))


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ours(work: Extraction) -> dict:
    """Extracts all videos as one shard; also measures how long the backbones waited."""
    (videos,) = work.tasks
    task = ShardTask(work.folder, 0, videos, work.backbones, work.batch_size, work.decoders, work.limits)
    task.run()
    part = read_part(work.folder, 0)
    steps = [sum(entry["streams"][name][1] for entry in part["videos"]) for name in work.backbones]
    failed = len(part["failed"])
    return {"seconds": task.seconds, "waiting": task.waiting / task.seconds, "steps": steps, "failed": failed}


@torch.inference_mode()
def plain(work: Extraction, models: list) -> float:
    began = time.perf_counter()
    for video in work.tasks[0]:
        streams = [backbone.stream for backbone in work.backbones.values()]
        clips = [Clips(stream.clip_length, NO_PIXELS) for stream in streams]

        def run(i: int, images: np.ndarray, streams=streams) -> None:
            processor, backbone = models[i]
            pixels = processor(list(images), return_tensors="pt")["pixel_values"]
            pixels = pixels.reshape(len(images), 3, *backbone.pixels["crop"]).to(backbone.device)
            pooled_output(backbone.model, pixels[None] if streams[i].clip_length > 1 else pixels).half().cpu()

        for i, moment, image in VideoReader(video.path).sample([stream.rate for stream in streams]):
            for _, images in clips[i].add(moment, image):
                run(i, images)
        for i, rest in enumerate(clips):
            for _, images in rest.rest():
                run(i, images)
    return time.perf_counter() - began


@torch.inference_mode()
def ready(work: Extraction, steps: list[int], device: str) -> float:
    """Runs only the backbones, on the same number of pictures and clips, in batches of the same size."""
    total = 0.0
    for backbone, count in zip(work.backbones.values(), steps):
        clip = backbone.stream.clip_length > 1
        size = max(1, work.batch_size // 4) if clip else work.batch_size
        edge = backbone.pixels["crop"]
        shape = (size, *([backbone.stream.clip_length] if clip else []), 3, *edge)
        pixels = torch.randn(shape, device=device).to(backbone.dtype)
        pooled_output(backbone.model, pixels)
        wait_for(device)
        began = time.perf_counter()
        for first in range(0, count, size):
            pooled_output(backbone.model, pixels[: count - first])
        wait_for(device)
        total += time.perf_counter() - began
    return total


def speed(args: argparse.Namespace) -> list[dict]:
    rounds = {precision: [] for precision in args.precisions}
    with tempfile.TemporaryDirectory() as folder:
        streams = save_backbones(Path(folder), args.backbones)
        models = [
            (AutoImageProcessor.from_pretrained(s.model, trust_remote_code=False), Backbone(s, args.device))
            for s in streams
        ]
        works = {
            precision: Extraction(args.videos, f"{folder}/{precision}", streams, precision, args.batch_size,
                                  args.decoders, args.device, shard_bytes=2**50)
            for precision in args.precisions
        }  # fmt: skip
        for number in range(args.rounds):
            plain_seconds = plain(next(iter(works.values())), models)
            for precision, work in works.items():
                result = ours(work)
                result |= {"ready": ready(work, result["steps"], args.device), "plain": plain_seconds}
                rounds[precision].append(result)
                print(f"round {number}, {precision}: {result}", flush=True)
    return [summary(args, precision, several) for precision, several in rounds.items()]


def summary(args: argparse.Namespace, precision: str, several: list[dict]) -> dict:
    return {
        "backbones": args.backbones,
        "precision": precision,
        "steps": several[0]["steps"],
        "failed": several[0]["failed"],
        "seconds": median(r["seconds"] for r in several),
        "waiting": median(r["waiting"] for r in several),
        "of_ready_rate": median(r["ready"] / r["seconds"] for r in several),
        "times_plain": median(r["plain"] / r["seconds"] for r in several),
        "rounds": several,
    }


def write_film(path: Path, minutes: float) -> None:
    """Writes a video of 320 x 240 pixels at 25 frames per second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        pictures = np.random.default_rng(0).integers(0, 255, (16, 15, 20, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        for i in range(int(minutes * 60 * 25)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pictures[i // 25 % 16], format="rgb24")))
        container.mux(stream.encode())


def memory(args: argparse.Namespace) -> list[dict]:
    """Measures each video in a separate process, since a peak never falls."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        save_backbones(Path(folder), args.backbones)
        for minutes in args.minutes:
            film = Path(folder, f"{minutes:g}.mp4")
            write_film(film, minutes)
            command = [sys.executable, __file__, "--one_film", str(film), "--models", folder, "--device", args.device]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append({"minutes": minutes, **json.loads(done.stdout.splitlines()[-1])})
    return results


def one_film(args: argparse.Namespace) -> None:
    streams = paper_streams(f"{args.models}/frame", f"{args.models}/clip")
    work = Extraction([args.one_film], f"{args.one_film}.features", streams, decoders=1, device=args.device)
    peaks, done = {"run_mib": 0.0, "child_mib": 0.0}, threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(peaks, done), daemon=True)
    watcher.start()
    result = ours(work)
    done.set()
    watcher.join()
    print(json.dumps({**peaks, "seconds": result["seconds"], "failed": result["failed"]}))


def watch_memory(peaks: dict, done: threading.Event) -> None:
    """Samples the children's memory; their `ru_maxrss` would count what they shared with this process at the start."""
    run = psutil.Process()
    while not done.wait(0.05):
        for name, processes in (("run_mib", [run]), ("child_mib", run.children())):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    peaks[name] = max(peaks[name], process.memory_info().rss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", help="folder or glob pattern")
    parser.add_argument("--backbones", choices=["paper", "tiny"], help="default: paper; tiny for --memory")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--decoders", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 60], help="lengths of the videos of --memory")
    parser.add_argument("--output_json")
    parser.add_argument("--one_film", help=argparse.SUPPRESS)
    parser.add_argument("--models", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_film:
        one_film(args)
        return
    args.backbones = args.backbones or ("tiny" if args.memory else "paper")
    if args.memory:
        results = memory(args)
        print("| minutes | backbones' process | decoding child | s |\n|---|---|---|---|")
        for r in results:
            print(f"| {r['minutes']:g} | {r['run_mib']:.0f} MiB | {r['child_mib']:.0f} MiB | {r['seconds']:.0f} |")
    elif args.videos is None:
        parser.error("--videos or --memory is needed")
    else:
        results = speed(args)
        print("| backbones | precision | s | waiting for decoding | share of ready rate | over a plain loop |")
        print("|---|---|---|---|---|---|")
        for r in results:
            print(f"| {r['backbones']} | {r['precision']} | {r['seconds']:.1f} | {r['waiting']:.1%} | "
                  f"{r['of_ready_rate']:.2f} | {r['times_plain']:.2f} |")  # fmt: skip
    if args.output_json:
        Path(args.output_json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
