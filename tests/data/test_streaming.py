"""A stream has the windows of the map-style data set, each once an epoch, in an order that nothing changes."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from helpers import WORDS, make_config, make_tokenizer
from torch.utils.data import BatchSampler, DataLoader

from vidlankd_hf import (
    TeacherConfig,
    TeacherTrainer,
    VideoTextCollator,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    load_video_text,
)
from vidlankd_hf.data import streaming, window_shards
from vidlankd_hf.data.features import ShardWriter
from vidlankd_hf.data.pairing import split_by_video
from vidlankd_hf.models.teacher import video_config_like
from vidlankd_hf.training.sampler import EpochDataset, EpochSampler

SECONDS = 60


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def write_data(folder, videos=12, shard_bytes=700):
    """Videos of a minute, some with few captions and one that fills a shard with many; two or three a shard."""
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder / "features", {"frame": {"model": "m", "rate": 1.0, "clip_length": 1}}, shard_bytes)
    rows = []
    for number in range(videos):
        times = torch.arange(SECONDS) + 0.5
        values = torch.stack([times, torch.full((SECONDS,), float(number))], 1)
        writer.add(f"v{number}.mp4", SECONDS, {"frame": (values.half(), times)})
        for t in range(SECONDS if number == 3 else int(rng.integers(5, 30))):
            text = " ".join(WORDS[i] for i in rng.integers(0, 60, rng.integers(2, 9)))
            rows.append({"video": f"v{number}", "start": t, "end": t + 1, "text": text})
    writer.close()
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def load(data, tokenizer, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_WINDOWS", 5)
    monkeypatch.setattr(streaming, "LEAST_VIDEOS", 2)

    def load(seed=3, streaming=True, **options):
        options = {"max_length": 14, "cache_dir": data / "cache", **options}
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer, seed=seed, streaming=streaming, **options
        )

    return load


def ids(samples):
    return [(sample["id"], sample["epoch"], sample["sample_id"]) for sample in samples]


# ---- the windows ----


def test_stream_has_the_windows_of_the_map_style_data_in_every_epoch(load):
    stream, whole = load(), load(streaming=False)
    assert len(stream.sizes) > 3 and stream.num_windows == len(whole) > 60
    for epoch in (0, 1, 5):
        expected = EpochDataset(whole).__getitems__(range(epoch * len(whole), (epoch + 1) * len(whole)))
        expected = {row["id"]: row for row in expected}
        stream.set_epoch(epoch)
        rows = list(stream)
        assert sorted(row["id"] for row in rows) == sorted(expected), "nothing is dropped or doubled"
        for row in rows:
            other = expected[row["id"]]
            assert set(row) == set(other)
            assert [row[name] for name in ("video", "text", "start", "end")] == [
                other[name] for name in ("video", "text", "start", "end")
            ]
            assert torch.equal(row["video_features"], other["video_features"])
            assert torch.equal(row["times"], other["times"])


def test_windows_stay_without_a_seed(load):
    stream = load(seed=None)
    first = {row["id"]: row["text"] for row in stream}
    stream.set_epoch(3)
    assert {row["id"]: row["text"] for row in stream} == first
    moving = load()
    moving.set_epoch(3)
    assert {row["id"]: row["text"] for row in moving} != first


def test_held_out_windows_are_of_other_videos_and_none_is_lost(load):
    stream = load()
    train, held_out = split_by_video(stream, 0.3)
    assert not set(train.videos()) & set(held_out.videos()) and set(held_out.videos())
    assert len(train) + len(held_out) == len(stream)
    assert sorted(s["id"] for part in (train, held_out) for s in part) == sorted(s["id"] for s in stream)
    assert train.videos()[7] == train.read([7], [0])[0]["video"]
    least, _ = split_by_video(stream, 1e-9)[1], None
    assert len(set(least.videos())) == 1, "at least one"
    with pytest.raises(ValueError, match="cannot hold out 12 of 12 videos"):
        split_by_video(stream, 0.9999)


# ---- the order ----


def test_order_is_a_pure_function_of_seed_and_epoch_shard_by_shard(load):
    stream = load()
    orders = {key: list(stream.order(*key)) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len({tuple(order) for order in orders.values()}) == 3
    again = pickle.loads(pickle.dumps(stream))
    for key, order in orders.items():
        assert sorted(order) == list(range(stream.num_windows))
        assert list(again.order(*key)) == order
        shards = np.searchsorted(np.cumsum(stream.sizes), order, side="right")
        assert (np.diff(shards) != 0).sum() == len(stream.sizes) - 1, "one shard is read after another"


def test_windows_of_one_video_are_in_different_blocks_where_there_are_enough(load):
    stream = load()
    videos = stream.videos()
    for shard in range(len(stream.sizes)):
        size, before = int(stream.sizes[shard]), int(stream._before[shard])
        blocks = -(-size // 5)
        for number in range(blocks):
            members = [videos[i] for i in range(before + number, before + size, blocks)]
            assert len(members) <= 5
            for video in set(members):
                total = videos[before : before + size].count(video)
                assert members.count(video) <= -(-total // blocks)


def test_any_place_goes_on_exactly_and_reads_nothing_before_it(load, monkeypatch):
    stream = load()
    stream.set_epoch(2)
    whole = ids(stream)
    read = []
    original = window_shards.WindowShard.read
    monkeypatch.setattr(window_shards.WindowShard, "read", lambda self, *a: read.append(a[0]) or original(self, *a))
    for taken in [*range(0, len(whole), 7), len(whole) - 1, len(whole)]:
        stream.set_epoch(2)
        state = json.loads(json.dumps(stream.state_after(taken)))
        resumed = load()
        resumed.load_state_dict(state)
        read.clear()
        assert ids(resumed) == whole[taken:]
        assert len(read) == len(whole) - taken
        assert resumed.state_after(len(whole) - taken) == stream.state_after(len(whole))
    stream.set_epoch(2)
    samples = iter(stream)
    for _ in range(17):
        next(samples)
    assert stream.state_dict() == stream.state_after(17)
    resumed.load_state_dict(stream.state_dict())
    next(iter(resumed))
    assert resumed.state_dict() == stream.state_after(18)


def test_shards_of_few_videos_are_read_together(load, monkeypatch):
    """The last one of a folder may be of one long video, of which a batch would have no negative."""
    monkeypatch.setattr(streaming, "LEAST_VIDEOS", 64)
    assert streaming._group([300, 64, 1, 70, 63, 2]).tolist() == [0, 1, 2, 4, 6]
    assert streaming._group([1, 1]).tolist() == [0, 2] and streaming._group([70, 70, 1]).tolist() == [0, 1, 3]
    monkeypatch.setattr(streaming, "LEAST_VIDEOS", 6)
    stream = load()
    videos = stream.videos()
    assert 1 < len(stream.sizes) < len(stream.names)
    assert all(len(set(videos[a:b])) >= 6 for a, b in zip(stream._before, stream._before[1:]))
    for epoch in range(3):
        order = list(stream.order(3, epoch))
        assert sorted(order) == list(range(len(videos)))
        stream.set_epoch(epoch)
        assert [row["sample_id"] for row in stream] == order
        assert len(stream._open) <= len(stream.names)


def loaded(stream, workers, batch_size=4):
    return [ids(batch) for batch in DataLoader(stream, batch_size, num_workers=workers, collate_fn=list)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_number_of_workers_changes_no_batch(load, workers):
    stream = load().take_turns(4)
    stream.set_epoch(1)
    expected = loaded(stream, 0)
    assert loaded(stream, workers) == expected
    stream.load_state_dict(stream.state_after(4 * 5))
    assert loaded(stream, workers) == expected[5:], "gone on with by another number of workers"


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_together_have_the_batches_of_one_but_those_that_not_all_get(load, workers):
    one = loaded(load().take_turns(4), 0)
    ranks = [load().take_turns(4, rank, 3) for rank in range(3)]
    parts = [loaded(stream, workers) for stream in ranks]
    turns = load().num_windows // 12
    assert [len(part) for part in parts] == [turns] * 3 and [len(stream) for stream in ranks] == [4 * turns] * 3
    assert [batch for turn in zip(*parts) for batch in turn] == one[: 3 * turns]
    for stream in ranks:
        stream.load_state_dict(stream.state_after(24))
    rest = [loaded(stream, workers) for stream in ranks]
    assert [batch for turn in zip(*rest) for batch in turn] == one[6 : 3 * turns]
    with pytest.raises(ValueError, match="rank 3 of 3"):
        load().take_turns(4, 3, 3)


def test_trainers_sampler_reads_this_order_in_whole_steps_however_they_are_split(load):
    stream = load()
    sampler = EpochSampler(stream.num_windows, 8, seed=7, order=stream.order)
    sampler.set_epoch(2)
    keys = list(sampler)
    assert len(keys) == len(sampler) == stream.num_windows // 8 * 8
    assert [key - 2 * stream.num_windows for key in keys] == list(stream.order(7, 2))[: len(keys)]
    ranks = [list(BatchSamplerShard(BatchSampler(sampler, 4, True), 2, rank)) for rank in range(2)]
    assert [key for step in zip(*ranks) for batch in step for key in batch] == keys
    read = EpochDataset(stream).__getitems__(keys[:3])
    assert [(s["sample_id"], s["epoch"]) for s in read] == [(key % stream.num_windows, 2) for key in keys[:3]]


# ---- training ----


def run(load, tokenizer, folder, resume=None, **arguments):
    torch.manual_seed(0)
    text = make_config(tokenizer, 0.1)
    teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video_config_like(text, 2)))
    defaults = {
        "max_steps": 20, "save_strategy": "no", "dataloader_num_workers": 2, "gradient_accumulation_steps": 2,
        "use_cpu": True,
    }  # fmt: skip
    args = TeacherConfig(
        output_dir=str(folder), per_device_train_batch_size=4, seed=5, learning_rate=1e-3, max_length=14,
        report_to="none", disable_tqdm=True, logging_steps=1, **(defaults | arguments),
    )  # fmt: skip
    train, held_out = split_by_video(load(), 0.2)
    steps = len(train) // 8
    assert 8 < steps < 18, "the steps below must be inside the first and the second epoch"
    trainer = TeacherTrainer(
        model=teacher, args=args, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer
    )
    trainer.train(resume_from_checkpoint=resume)
    losses = [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
    return losses, torch.cat([p.detach().flatten() for p in teacher.parameters()]), trainer


@pytest.mark.parametrize("steps", [(1, 8, 18), pytest.param(range(1, 20), marks=pytest.mark.slow)])
def test_training_resumed_inside_an_epoch_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path, load, tokenizer, monkeypatch, steps
):
    monkeypatch.setattr(streaming, "LEAST_VIDEOS", 6)
    losses, weights, trainer = run(load, tokenizer, tmp_path / "whole", save_strategy="steps", save_steps=1)
    assert trainer.evaluate()["eval_text_to_video_r@10"] >= 0
    for step in steps:
        resume = str(tmp_path / "whole" / f"checkpoint-{step}")
        workers = 0 if step == 8 else 2
        again, same, _ = run(load, tokenizer, tmp_path / "again", resume, dataloader_num_workers=workers)
        assert again == losses and torch.equal(same, weights), step


@pytest.mark.slow
def test_training_of_two_processes_resumed_after_any_step_equals_the_uninterrupted_one(tmp_path):
    write_data(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, __file__, str(tmp_path)], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("EQUAL")] == [
        f"EQUAL {step} True" for step in range(1, 20)
    ]


def resume_everywhere(folder):
    """What each of two processes does in the test above."""
    streaming.BLOCK_WINDOWS, streaming.LEAST_VIDEOS = 5, 6
    tokenizer = make_tokenizer()

    def load():
        sources = folder / "features", folder / "captions.jsonl", tokenizer
        return load_video_text(*sources, max_length=14, seed=3, streaming=True, cache_dir=folder / "cache")

    options = {"gradient_accumulation_steps": 1, "use_cpu": False}
    saved = {"save_strategy": "steps", "save_steps": 1}
    losses, weights, trainer = run(load, tokenizer, folder / "whole", **options, **saved)
    for step in range(1, 20):
        resume = str(folder / "whole" / f"checkpoint-{step}")
        again, same, _ = run(load, tokenizer, folder / "again", resume, **options)
        if trainer.is_world_process_zero():
            print(f"EQUAL {step} {again == losses and torch.equal(same, weights)}", flush=True)


def test_batches_of_a_stream_are_those_of_the_collator(load, tokenizer):
    stream = load().take_turns(6)
    batch = next(iter(DataLoader(stream, 6, collate_fn=VideoTextCollator(tokenizer, seed=1, max_length=14))))
    keys = list(stream.order(3, 0))[:6]
    expected = VideoTextCollator(tokenizer, seed=1, max_length=14)(EpochDataset(stream).__getitems__(keys))
    assert batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in batch)
    videos = [stream.videos()[key] for key in keys]
    same = [[a == b for b in videos] for a in videos]
    assert (batch["video_ids"][:, None] == batch["video_ids"]).tolist() == same


# ---- what is prepared ----


def test_captions_are_divided_once_and_anew_where_something_changed(tmp_path, tokenizer, monkeypatch):
    data = write_data(tmp_path, videos=4)

    def load(**options):
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer,
            streaming=True, **{"max_length": 14, "cache_dir": tmp_path / "cache", **options},
        )  # fmt: skip

    first = load()
    monkeypatch.setattr(window_shards, "_write", None)
    assert load().folder == first.folder
    monkeypatch.undo()
    assert load(max_length=20).folder != first.folder
    with open(data / "captions.jsonl", "a") as file:
        file.write(json.dumps({"video": "v1", "start": 50, "end": 51, "text": "word1"}) + "\n")
    assert load().folder != first.folder
    assert {p.name.split("-")[0] for p in (tmp_path / "cache").iterdir()} == {"windows"}, "nothing half-written stays"


def test_captions_in_any_order_and_of_any_amount_held_make_the_same_windows(tmp_path, tokenizer, monkeypatch):
    data = write_data(tmp_path)
    lines = (data / "captions.jsonl").read_text().splitlines(keepends=True)

    def windows(cache):
        stream = load_video_text(
            data / "features", data / "captions.jsonl", tokenizer, streaming=True, cache_dir=tmp_path / cache
        )
        return [(row["id"], row["text"], row["start"]) for row in stream]

    expected = windows("a")
    monkeypatch.setattr(window_shards, "HELD_CHARACTERS", 200)
    np.random.default_rng(1).shuffle(lines)
    (data / "captions.jsonl").write_text("".join(lines))
    assert windows("b") == expected


def test_unpaired_are_counted_listed_and_refused_above_the_share(tmp_path, tokenizer, caplog):
    data = write_data(tmp_path, videos=5)
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["video"] != "v4"] + [
        {"video": "x", "start": 0, "end": 1, "text": "word1"},
        {"video": "v1", "start": 59, "end": 70, "text": "word2"},
    ]
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(max_unpaired, streaming=True):
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer,
            max_unpaired=max_unpaired, streaming=streaming, cache_dir=tmp_path / "cache",
        )  # fmt: skip

    messages = []
    for streamed in (True, False):
        with pytest.raises(
            ValueError, match="1 captions of 1 videos .*'x'.*1 captions lie outside.*'v4.mp4'"
        ) as error:
            load(0.1, streamed)
        messages.append(str(error.value).replace("'v0.mp4'", "").replace("'v4.mp4'", ""))
    assert messages[0].rpartition(";")[0] == messages[1].rpartition(";")[0]
    stream = load(0.2)
    assert "Left out" in caplog.text and stream.num_windows == len(load(0.2, streaming=False))
    listed = [json.loads(line) for line in (stream.folder / "unpaired.jsonl").read_text().splitlines()]
    assert [(row["what"], row["video"]) for row in listed] == [
        ("caption without video", "x"), ("caption outside video", "v1"), ("video without captions", "v4.mp4"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="cannot be shuffled with streaming"):
        load_video_text(data / "features", data / "captions.jsonl", tokenizer, shuffle_videos_seed=0, streaming=True)


def test_index_that_points_elsewhere_and_damaged_lines_are_refused(tmp_path, tokenizer):
    data = write_data(tmp_path, videos=4)

    def load():
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer, streaming=True, cache_dir=tmp_path / "cache"
        )

    stream = load()
    path = next(stream.folder.glob("*.lines.arrow"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        list(load())
    with pytest.raises(ValueError, match="has no stream 'sound'"):
        streaming.VideoTextStream(data / "features", stream.folder, ["sound"])
    index = data / "features" / "index.jsonl"
    index.write_text(index.read_text().replace("shard-00000", "../../outside"))
    (stream.folder / "info.json").unlink()
    with pytest.raises(ValueError, match="does not list"):
        load()
    assert not (tmp_path / "outside.safetensors").exists()


if __name__ == "__main__":
    resume_everywhere(Path(sys.argv[1]))
