"""Vokenization finds the nearest clip of every token once, resumes, and vokens of other texts are refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import WORDS, logged, make_teacher, make_texts, make_tokenizer, make_video_text, refusal, train
from safetensors.torch import load_file

from vidlankd_hf import VidLanKDStudent, load_text_blocks
from vidlankd_hf.data.text_blocks import TextBlocks
from vidlankd_hf.experiments import vokenization
from vidlankd_hf.experiments.vokenization import nearest, vokenize

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def vokenizer(tokenizer):
    return make_teacher(tokenizer, joint_size=8)


@pytest.fixture(scope="module")
def clips():
    rows = make_video_text(24)
    return rows.add_column("start", [0.0] * len(rows)).add_column("end", [1.0] * len(rows))


def lines_of(seed):
    rng = np.random.default_rng(seed)
    return Dataset.from_dict({"text": [" ".join(rng.choice(WORDS, 40)) for _ in range(20)]})


def blocks_of(folder, tokenizer, seed=0):
    return load_text_blocks(lines_of(seed), tokenizer, folder, block_tokens=10)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_nearest_is_the_largest_inner_product_however_the_bank_is_divided(rows):
    generator = torch.Generator().manual_seed(0)
    queries, bank = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (50, 40))
    bank[33] = bank[2]  # the first of several equal ones
    naive = [max(range(40), key=lambda k: (float(q @ bank[k]), -k)) for q in queries]
    assert nearest(queries, bank, rows).tolist() == naive


def test_every_token_gets_the_clip_nearest_to_it_in_its_unmasked_block(tmp_path, tokenizer, vokenizer, clips):
    blocks = blocks_of(tmp_path, tokenizer)
    info = vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "v", num_vokens=9, seed=3, batch_size=4)
    vokens = np.load(tmp_path / "v" / "vokens.npy")
    bank = load_file(tmp_path / "v" / "bank.safetensors")["clips"]
    chosen = json.loads((tmp_path / "v" / "bank.json").read_text())
    assert vokens.shape == (80, 10) and vokens.dtype == np.uint16 and len(bank) == len(chosen) == 9
    by_id = {row["id"]: row for row in clips}
    for vector, clip in zip(bank, chosen):
        features = torch.tensor(by_id[clip["id"]]["video_features"], dtype=torch.float32)[None]
        torch.testing.assert_close(vector, vokenizer.encode_video(features)[0], rtol=1e-4, atol=1e-5)
    for block, row in zip(blocks.array[[0, 41, 79]].astype(np.int64), vokens[[0, 41, 79]]):
        ids = torch.tensor([[tokenizer.cls_token_id, *block, tokenizer.sep_token_id]])
        tokens = vokenizer.unit_tokens(vokenizer.encode_text(ids))[0, 1:-1]
        assert row.tolist() == (tokens @ bank.T).argmax(1).tolist()
    counts = np.bincount(vokens.reshape(-1), minlength=9)
    assert info["used"] == (counts > 0).sum() and info["largest_share"] == counts.max() / counts.sum()


def test_interrupted_vokenization_makes_only_what_is_missing(tmp_path, tokenizer, vokenizer, clips, monkeypatch):
    monkeypatch.setattr(vokenization, "LEAST_SHARDS", 3)
    blocks, made = blocks_of(tmp_path, tokenizer), []
    arguments = (vokenizer, tokenizer, blocks, clips)
    vokenize(*arguments, tmp_path / "whole", num_vokens=9)
    work = vokenization._nearest_clips

    def stops_in_the_third(*args, description):
        made.append(description)
        if len(made) == 3:
            raise KeyboardInterrupt
        return work(*args, description=description)

    monkeypatch.setattr(vokenization, "_nearest_clips", stops_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        vokenize(*arguments, tmp_path / "parts", num_vokens=9)
    assert not (tmp_path / "parts" / "info.json").exists()
    vokenize(*arguments, tmp_path / "parts", num_vokens=9)
    vokenize(*arguments, tmp_path / "parts", num_vokens=9)  # finished: nothing to do
    assert made == ["shard-00000", "shard-00001", "shard-00002", "shard-00002"]
    files = [sorted((p.name, p.read_bytes()) for p in (tmp_path / n).iterdir()) for n in ("whole", "parts")]
    assert files[0] == files[1]


def test_folder_with_other_settings_and_too_few_clips_are_refused(tmp_path, tokenizer, vokenizer, clips):
    blocks = blocks_of(tmp_path, tokenizer)
    vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "v", num_vokens=9)
    for change, named in (({"num_vokens": 8}, "num_vokens was 9 and is now 8; clips"), ({"seed": 5}, "clips")):
        with pytest.raises(ValueError, match=f"other settings \\({named}"):
            vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "v", **{"num_vokens": 9, **change})
    with pytest.raises(ValueError, match="other settings \\(vokenizer"):
        other = make_teacher(tokenizer, joint_size=8, seed=1)
        vokenize(other, tokenizer, blocks, clips, tmp_path / "v", num_vokens=9)
    with pytest.raises(ValueError, match="num_vokens is 25.*24 clips"):
        vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "w", num_vokens=25)
    with pytest.raises(ValueError, match="no video encoder"):
        vokenize(make_teacher(tokenizer, losses="mlm"), tokenizer, blocks, clips, tmp_path / "w", num_vokens=9)
    with pytest.raises(ValueError, match="holds no vokens"):
        vokenize(vokenizer, tokenizer, blocks, clips, tmp_path, num_vokens=9)


def test_vokens_of_another_text_or_tokenizer_are_refused(tmp_path, tokenizer, vokenizer, clips):
    blocks, other = blocks_of(tmp_path / "a", tokenizer), blocks_of(tmp_path / "b", tokenizer, seed=1)
    vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "v", num_vokens=9)
    again = blocks_of(tmp_path / "c", tokenizer)
    assert TextBlocks(again.folder, vokens=tmp_path / "v").num_vokens == 9, "the same text elsewhere"
    with pytest.raises(ValueError, match="another text"):
        TextBlocks(other.folder, vokens=tmp_path / "v")
    reordered = blocks_of(tmp_path / "d", make_tokenizer(WORDS[::-1]))
    with pytest.raises(ValueError, match="another tokenizer"):
        TextBlocks(reordered.folder, vokens=tmp_path / "v")
    longer = load_text_blocks(lines_of(0), tokenizer, tmp_path / "e", block_tokens=20)
    with pytest.raises(ValueError, match="another length of blocks \\(10\\).*\\(20\\)"):
        TextBlocks(longer.folder, vokens=tmp_path / "v")
    with pytest.raises(ValueError, match="made with another tokenizer"):
        vokenize(vokenizer, make_tokenizer(WORDS[::-1]), blocks, clips, tmp_path / "w", num_vokens=9)
    with pytest.raises(ValueError, match="a part of their folder"):
        vokenize(vokenizer, tokenizer, blocks.split(10)[0], clips, tmp_path / "w", num_vokens=9)
    (tmp_path / "v" / "info.json").unlink()
    with pytest.raises(ValueError, match="no finished vokens.*vidlankd vokenize"):
        TextBlocks(blocks.folder, vokens=tmp_path / "v")


def test_blocks_carry_their_vokens_through_split_and_collator(tmp_path, tokenizer, vokenizer, clips):
    from vidlankd_hf import TextCollator
    from vidlankd_hf.training.sampler import EpochDataset

    blocks = blocks_of(tmp_path, tokenizer)
    vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "v", num_vokens=9)
    vokens = np.load(tmp_path / "v" / "vokens.npy")
    _, held_out = TextBlocks(blocks.folder, vokens=tmp_path / "v").split(20)
    assert np.array_equal(held_out[3]["voken_ids"], vokens[63])
    batch = TextCollator(tokenizer)(EpochDataset(held_out).__getitems__([3, 5]))
    assert batch["voken_ids"].tolist() == [[-100, *vokens[i].tolist(), -100] for i in (63, 65)]


def test_batch_of_clips_of_one_video_is_vokenized_too(tmp_path, tokenizer, vokenizer, clips):
    blocks = blocks_of(tmp_path, tokenizer)
    assert clips[22]["video"] == clips[23]["video"], "the last batch of 11 holds these two"
    vokenize(vokenizer, tokenizer, blocks, clips, tmp_path / "v", num_vokens=24, batch_size=11)


def test_vokens_that_do_not_fit_their_text_are_an_error(tokenizer):
    from vidlankd_hf import TextCollator

    samples = [{"input_ids": np.arange(5, 9), "voken_ids": np.arange(3), "sample_id": 0, "epoch": 0}]
    with pytest.raises(ValueError, match="different lengths"):
        TextCollator(tokenizer)(samples)


def with_vokens(texts, num_vokens=7, seed=0):
    rng = np.random.default_rng(seed)
    return [{**text, "voken_ids": rng.integers(0, num_vokens, len(text["input_ids"]))} for text in texts]


def test_voken_loss_is_exact_over_accumulation_on_ragged_batches_and_needs_no_teacher(tmp_path):
    texts = with_vokens(make_texts(50))
    runs = [
        train("student", tmp_path / str(ga), {"voken": {"weight": 1.0, "num_vokens": 7}}, texts=texts, max_steps=5,
              per_device_train_batch_size=16 // ga, gradient_accumulation_steps=ga)
        for ga in (1, 4)
    ]  # fmt: skip
    for a, b in zip(*(logged(run, "loss", "grad_norm", "mlm_loss", "voken_loss") for run in runs), strict=True):
        assert a == pytest.approx(b, rel=2e-5)
    assert runs[0].teacher_model is None and abs(logged(runs[0], "voken_loss")[0]["voken_loss"] - np.log(7)) < 0.2
    assert "eval_voken_loss" in runs[0].evaluate()
    runs[0].save_model()
    loaded = VidLanKDStudent.from_pretrained(tmp_path / "1")
    assert loaded.distillation_heads["voken"].layers[-1].out_features == 7


def test_voken_objective_without_vokens_or_with_another_number_is_an_error(tmp_path):
    objectives = {"voken": {"weight": 1.0, "num_vokens": 7}}
    with pytest.raises(ValueError, match="voken_ids.*vidlankd vokenize"):
        train("student", tmp_path, objectives)

    class Counted(list):
        num_vokens = 9

    with pytest.raises(ValueError, match="9 vokens.*'voken'.*7"):
        train("student", tmp_path, objectives, texts=Counted(with_vokens(make_texts(50))))
    with pytest.raises(ValueError, match="no distillation head"):
        train("student", tmp_path, {"voken": {"weight": 1.0, "head": False}})


@pytest.mark.slow
def test_the_commands_vokenize_a_world_and_train_on_it(tiny_world, tmp_path, monkeypatch):
    def run(script, *arguments):
        command = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    quick = ["--world", tiny_world, "--max_steps", 3, "--warmup_steps", 0, "--report_to", "none", "--use_cpu", "true"]
    run("pretrain_teacher.py", *quick, "--joint_size", 8, "--output_dir", tmp_path / "vokenizer")
    options = ["--vokenizer", tmp_path / "vokenizer", "--world", tiny_world, "--cache_dir", tmp_path]
    output = run("vokenize.py", *options, "--num_vokens", 20, "--output_dir", tmp_path / "vokens")
    assert "of 20 clips are used" in output and "vidlankd distill --vokens" in output
    student = [
        "--teacher",
        tmp_path / "vokenizer",
        "--cache_dir",
        tmp_path,
        "--objectives",
        '{"voken": 1}',
        "--no_probe",
    ]
    run("distill.py", *quick, *student, "--vokens", tmp_path / "vokens", "--output_dir", tmp_path / "student")
    recipe = json.loads((tmp_path / "student" / "distillation" / "recipe.json").read_text())
    assert recipe["objectives"] == {"voken": {"weight": 1.0, "num_vokens": 20}}
    message = refusal(monkeypatch, "distill", *quick, *student, "--output_dir", tmp_path / "none")
    assert "needs --vokens" in message


@pytest.mark.slow
def test_two_processes_make_the_same_vokens_as_one(tiny_world, tmp_path, tokenizer):
    from transformers import AutoTokenizer

    world_tokenizer = AutoTokenizer.from_pretrained(tiny_world / "tokenizer")
    teacher = make_teacher(world_tokenizer, joint_size=8, shape={"vocab_size": len(world_tokenizer)})
    from vidlankd_hf.data.features import FeatureStore
    from vidlankd_hf.models.configuration import video_config_like

    teacher.config.video_config = video_config_like(
        teacher.config.text_config, FeatureStore(tiny_world / "features").feature_size
    )
    teacher = type(teacher)(teacher.config)
    teacher.save_pretrained(tmp_path / "vokenizer")
    world_tokenizer.save_pretrained(tmp_path / "vokenizer")
    for name, launcher in (
        ("one", [sys.executable]),
        ("two", [sys.executable, "-m", "accelerate.commands.launch", "--config_file",
                 str(ROOT / "accelerate_configs" / "cpu.yaml"), "--main_process_port", "0"]),
    ):  # fmt: skip
        command = [*launcher, str(ROOT / "examples" / "vokenize.py"), "--vokenizer", str(tmp_path / "vokenizer")]
        command += ["--world", str(tiny_world), "--cache_dir", str(tmp_path), "--num_vokens", "20"]
        command += ["--output_dir", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "one" / "vokens.npy").read_bytes() == (tmp_path / "two" / "vokens.npy").read_bytes()
