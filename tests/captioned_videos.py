"""Feature shards and caption files of made-up videos."""

import json

import torch

from vidlankd_hf.data.features import ShardWriter


def write_features(folder, durations):
    """Writes one feature per second: its first value is the second, its second value the number of the video."""
    writer = ShardWriter(folder, {"frame": {"model": "none", "rate": 1.0, "clip_length": 1}})
    for number, (video, duration) in enumerate(durations.items()):
        times = torch.arange(int(duration)) + 0.5
        features = torch.stack([torch.arange(int(duration)).float(), torch.full((int(duration),), float(number))], 1)
        writer.add(video, duration, {"frame": (features.half(), times)})
    writer.close()
    return folder


def write_captions(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def caption(video, start, end, text="word1 word2"):
    return {"video": video, "start": start, "end": end, "text": text}
