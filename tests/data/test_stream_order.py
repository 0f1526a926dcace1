"""Windows on disk are read once an epoch, in an order that workers, ranks and resuming do not change."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import BatchSamplerShard
from captioned_videos import write_captioned_shards
from helpers import make_config, make_tokenizer
from streamed_windows import ids, loaded, loader_of, make_sampler, order_of
from torch.utils.data import BatchSampler

from vidlankd_hf import (
    TeacherConfig,
    TeacherTrainer,
    VideoTextCollator,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    load_video_text,
)
from vidlankd_hf.data import streaming, window_shards
from vidlankd_hf.data.video_text import split_by_video
from vidlankd_hf.models.configuration import video_config_like
from vidlankd_hf.training import sampler as sampler_module
from vidlankd_hf.training.sampler import EpochDataset


def test_order_is_a_pure_function_of_seed_and_epoch_shard_by_shard(load_windows):
    stream = load_windows()
    orders = {key: order_of(stream, *key) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len({tuple(order) for order in orders.values()}) == 3
    again = pickle.loads(pickle.dumps(stream))
    for key, order in orders.items():
        assert sorted(order) == list(range(len(stream)))
        assert order_of(again, *key) == order
        shards = np.searchsorted(np.cumsum(stream.shard_sizes), order, side="right")
        assert (np.diff(shards) != 0).sum() == len(stream.shard_sizes) - 1, "one shard is read after another"


def test_windows_of_one_video_are_in_different_blocks_where_there_are_enough(load_windows):
    stream = load_windows()
    videos, order = stream.videos(), order_of(stream)
    shard_of = np.searchsorted(np.cumsum(stream.shard_sizes), order, side="right")
    for shard, size in enumerate(stream.shard_sizes):
        blocks = -(-int(size) // 5)
        members = [index for index, of in zip(order, shard_of) if of == shard]
        before = int(stream.shard_sizes[:shard].sum())
        read, total = [], [videos[index] for index in members]
        while members:  # a block's windows follow each other
            block = [index for index in members if (index - before) % blocks == (members[0] - before) % blocks]
            assert members[: len(block)] == block and len(block) <= 5
            members, read = members[len(block) :], [*read, [videos[index] for index in block]]
        assert len(read) == blocks
        for block in read:
            assert all(block.count(video) <= -(-total.count(video) // blocks) for video in set(block))


@pytest.mark.parametrize("workers", [0, 2])
def test_loop_continues_exactly_after_any_batch_and_reads_nothing_before_it(load_windows, monkeypatch, workers):
    stream = load_windows()
    expected = loaded(stream, epoch=2)
    read = []
    original = window_shards.WindowShard.sample
    monkeypatch.setattr(window_shards.WindowShard, "sample", lambda self, *a: read.append(a[0]) or original(self, *a))
    for batches in [*range(0, len(expected), 3), len(expected) - 1]:
        read.clear()
        resumed = skip_first_batches(loader_of(load_windows(), workers, epoch=2), batches)
        assert [ids(batch) for batch in resumed] == expected[batches:]
        assert workers or len(read) == sum(map(len, expected[batches:]))


def test_shards_of_few_videos_are_read_together(load_windows, monkeypatch):
    """The last shard of a folder may hold one long video, so that a batch would have no negative."""
    monkeypatch.setattr(streaming, "MIN_VIDEOS", 64)
    assert streaming._group_files([300, 64, 1, 70, 63, 2]).tolist() == [0, 1, 2, 4, 6]
    assert streaming._group_files([1, 1]).tolist() == [0, 2]
    assert streaming._group_files([70, 70, 1]).tolist() == [0, 1, 3]
    monkeypatch.setattr(streaming, "MIN_VIDEOS", 6)
    stream = load_windows()
    videos, before = stream.videos(), np.concatenate([[0], np.cumsum(stream.shard_sizes)])
    assert 1 < len(stream.shard_sizes) < len(stream.names)
    assert all(len(set(videos[a:b])) >= 6 for a, b in zip(before, before[1:]))
    for epoch in range(3):
        order = order_of(stream, 3, epoch)
        assert sorted(order) == list(range(len(videos)))
        read = EpochDataset(stream).__getitems__([epoch * len(stream) + index for index in order])
        assert [row["sample_id"] for row in read] == order
        assert len(stream._open) <= len(stream.names)


def test_few_shards_are_open_at_a_time(load_windows, monkeypatch):
    opened = []
    original = window_shards.WindowShard.__init__
    monkeypatch.setattr(
        window_shards.WindowShard, "__init__", lambda self, *a: opened.append(a[2]) or original(self, *a)
    )
    stream = load_windows()
    assert len(stream.names) > 4
    for keys in BatchSampler(make_sampler(stream, epoch=1), 4, drop_last=False):
        EpochDataset(stream).__getitems__(keys)
        assert len(stream._open) <= 2 * int(np.diff(stream._first_files).max())
    assert sorted(opened) == sorted(stream.names), "each shard is opened once an epoch"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_number_of_workers_changes_no_batch(load_windows, workers):
    stream = load_windows()
    expected = loaded(stream, 0, epoch=1)
    assert loaded(stream, workers, epoch=1) == expected
    resumed = skip_first_batches(loader_of(stream, workers, epoch=1), 5)
    assert [ids(batch) for batch in resumed] == expected[5:], "resumed with another number of workers"


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_together_have_the_batches_of_one_rank_in_complete_steps(load_windows, workers):
    one = loaded(load_windows())
    parts = [loaded(load_windows(), workers, rank=rank, ranks=3) for rank in range(3)]
    turns = len(load_windows()) // 12
    assert [len(part) for part in parts] == [turns] * 3
    assert [batch for turn in zip(*parts) for batch in turn] == one[: 3 * turns]
    rest = [skip_first_batches(loader_of(load_windows(), workers, rank=rank, ranks=3), 2) for rank in range(3)]
    rest = [[ids(batch) for batch in loader] for loader in rest]
    assert [batch for turn in zip(*rest) for batch in turn] == one[6 : 3 * turns]


def test_trainers_sampler_reads_this_order_in_complete_steps_however_they_are_split(load_windows):
    stream = load_windows()
    sampler = make_sampler(stream, seed=7, epoch=2, samples_per_step=8)
    keys = list(sampler)
    assert len(keys) == len(sampler) == len(stream) // 8 * 8
    assert [key - 2 * len(stream) for key in keys] == order_of(stream, 7, 2)[: len(keys)]
    ranks = [list(BatchSamplerShard(BatchSampler(sampler, 4, True), 2, rank)) for rank in range(2)]
    assert [key for step in zip(*ranks) for batch in step for key in batch] == keys
    read = EpochDataset(stream).__getitems__(keys[:3])
    assert [(s["sample_id"], s["epoch"]) for s in read] == [(key % len(stream), 2) for key in keys[:3]]


# ---- training ----


def run(load_windows, tokenizer, folder, resume=None, **arguments):
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
    train, held_out = split_by_video(load_windows(), 0.2)
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
    tmp_path, load_windows, tokenizer, monkeypatch, steps
):
    monkeypatch.setattr(streaming, "MIN_VIDEOS", 6)
    losses, weights, trainer = run(load_windows, tokenizer, tmp_path / "whole", save_strategy="steps", save_steps=1)
    assert trainer.evaluate()["eval_text_to_video_r@10"] >= 0
    for step in steps:
        resume = str(tmp_path / "whole" / f"checkpoint-{step}")
        workers = 0 if step == 8 else 2
        again, same, _ = run(load_windows, tokenizer, tmp_path / "again", resume, dataloader_num_workers=workers)
        assert again == losses and torch.equal(same, weights), step


@pytest.mark.slow
def test_training_of_two_processes_resumed_after_any_step_equals_the_uninterrupted_one(tmp_path):
    write_captioned_shards(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3])),
    }
    done = subprocess.run(
        [*command, __file__, str(tmp_path)], capture_output=True, text=True, timeout=580, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("EQUAL")] == [
        f"EQUAL {step} True" for step in range(1, 20)
    ]


def resume_everywhere(folder):
    """Runs in each of the two processes of the test above."""
    sampler_module.BLOCK_SAMPLES, streaming.MIN_VIDEOS = 5, 6
    tokenizer = make_tokenizer()

    def load_windows():
        sources = folder / "features", folder / "captions.jsonl", tokenizer
        return load_video_text(*sources, max_length=14, seed=3, streaming=True, cache_dir=folder / "cache")

    options = {"gradient_accumulation_steps": 1, "use_cpu": False}
    saved = {"save_strategy": "steps", "save_steps": 1}
    losses, weights, trainer = run(load_windows, tokenizer, folder / "whole", **options, **saved)
    for step in range(1, 20):
        resume = str(folder / "whole" / f"checkpoint-{step}")
        again, same, _ = run(load_windows, tokenizer, folder / "again", resume, **options)
        if trainer.is_world_process_zero():
            print(f"EQUAL {step} {again == losses and torch.equal(same, weights)}", flush=True)


def test_batches_of_a_stream_are_those_of_the_collator(load_windows, tokenizer):
    stream = load_windows()
    loader = loader_of(stream, batch_size=6)
    loader.collate_fn = VideoTextCollator(tokenizer, seed=1, max_length=14)
    batch = next(iter(loader))
    keys = order_of(stream)[:6]
    expected = VideoTextCollator(tokenizer, seed=1, max_length=14)(EpochDataset(stream).__getitems__(keys))
    assert batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in batch)
    videos = [stream.videos()[key] for key in keys]
    same = [[a == b for b in videos] for a in videos]
    assert (batch["video_ids"][:, None] == batch["video_ids"]).tolist() == same


if __name__ == "__main__":
    resume_everywhere(Path(sys.argv[1]))
