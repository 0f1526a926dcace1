"""Feature shards and caption files of made-up videos."""

import json

import numpy as np
import torch
from helpers import WORDS

from vidlankd_hf.data.features import ShardWriter


def write_features(folder, durations, **options):
    """Writes one feature per second: its first value is the second, its second value the number of the video."""
    writer = ShardWriter(folder, {"frame": {"model": "none", "rate": 1.0, "clip_length": 1}}, **options)
    for number, (video, duration) in enumerate(durations.items()):
        times = torch.arange(int(duration)) + 0.5
        features = torch.stack([torch.arange(int(duration)).float(), torch.full((int(duration),), float(number))], 1)
        writer.add(video, duration, {"frame": (features.half(), times)})
    writer.close()
    return folder


def forge(folder):
    """Leaves out the checksums of a feature folder that may be missing, as someone does who changes its files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {name: value for name, value in manifest.items() if name not in ("xxh3", "index_sha256")}
    (folder / "manifest.json").write_text(json.dumps(kept))


def write_captions(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def caption(video, start, end, text="word1 word2"):
    return {"video": video, "start": start, "end": end, "text": text}


def write_captioned_shards(folder, videos=12, shard_bytes=700):
    """Writes one-minute videos, two or three per shard; some have few captions, and one fills a shard with many."""
    write_features(folder / "features", {f"v{number}.mp4": 60.0 for number in range(videos)}, shard_bytes=shard_bytes)
    rng, rows = np.random.default_rng(0), []
    for number in range(videos):
        for t in range(60 if number == 3 else int(rng.integers(5, 30))):
            text = " ".join(WORDS[i] for i in rng.integers(0, 60, rng.integers(2, 9)))
            rows.append(caption(f"v{number}", t, t + 1, text))
    write_captions(folder / "captions.jsonl", rows)
    return folder
