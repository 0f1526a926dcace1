"""The teacher: shapes, saving, training, and errors for invalid data and settings."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import FEATURE_SIZE, WORDS, make_config, make_teacher, make_tokenizer, make_video_text, train
from transformers import AutoConfig, AutoModel, BertModel, RobertaConfig, RobertaForMaskedLM

from vidlankd_hf import TeacherConfig, TeacherTrainer, VideoTextCollator, VidLanKDTeacher, VidLanKDTeacherConfig
from vidlankd_hf.training import sampler as sampler_module
from vidlankd_hf.training.sampler import EpochDataset, EpochSampler
from vidlankd_hf.training.teacher_trainer import recall_at


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def batch_of(tokenizer, count=6):
    return VideoTextCollator(tokenizer)(EpochDataset(make_video_text(count)).__getitems__(list(range(count))))


def test_encoders_return_raw_token_states_and_unit_clip_vectors(tokenizer):
    teacher, batch = make_teacher(tokenizer).eval(), batch_of(tokenizer)
    states = teacher.encode_text(batch["input_ids"], batch["attention_mask"])
    assert states.shape == (*batch["input_ids"].shape, 32)
    expected = teacher.text_model.bert(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    assert torch.equal(states, expected)
    clips = teacher.encode_video(batch["video_features"], batch["video_mask"])
    assert clips.shape == (6, 32)
    torch.testing.assert_close(clips.norm(dim=-1), torch.ones(6))


def test_clip_vector_is_the_mean_over_real_steps_only(tokenizer):
    teacher, batch = make_teacher(tokenizer).eval(), batch_of(tokenizer)
    clips = teacher.encode_video(batch["video_features"], batch["video_mask"])
    features = batch["video_features"].masked_fill(batch["video_mask"][..., None] == 0, 55.0)
    torch.testing.assert_close(clips, teacher.encode_video(features, batch["video_mask"]))
    row = int(batch["video_mask"].sum(1).argmin())
    steps = int(batch["video_mask"][row].sum())
    alone = teacher.encode_video(batch["video_features"][row : row + 1, :steps])
    torch.testing.assert_close(alone[0], clips[row], rtol=1e-4, atol=1e-5)


def test_feature_statistics_stay_float32_in_a_bf16_model(tokenizer, tmp_path):
    """With a mean 100 times the deviation, bf16 statistics would leave little of the features."""
    teacher = make_teacher(tokenizer).eval()
    mean, std = torch.linspace(99, 101, FEATURE_SIZE), torch.linspace(0.9, 1.1, FEATURE_SIZE)
    teacher.set_feature_statistics(mean, std)
    features, mask = mean + std * torch.randn(8, 3, FEATURE_SIZE), torch.ones(8, 3, dtype=torch.long)
    with torch.no_grad():
        expected = teacher.encode_video(features, mask)
        teacher.save_pretrained(tmp_path)
        cast = teacher.bfloat16()  # as DeepSpeed casts a model
        loaded = VidLanKDTeacher.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
        for half in (cast, loaded):
            assert half.video_encoder.projection[0].weight.dtype == torch.bfloat16
            assert torch.equal(half.video_encoder.feature_mean, mean)
            assert torch.equal(half.video_encoder.feature_std, std)
            assert (half.encode_video(features, mask) * expected).sum(-1).min() > 0.999


def test_saved_teacher_loads_with_auto_model_and_computes_the_same(tokenizer, tmp_path):
    teacher, batch = make_teacher(tokenizer, contrast="hinge", margin=0.5).eval(), batch_of(tokenizer)
    teacher.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, VidLanKDTeacher) and not any(info.values())
    assert isinstance(AutoConfig.from_pretrained(tmp_path), VidLanKDTeacherConfig)
    assert torch.equal(loaded.eval()(**batch).loss, teacher(**batch).loss)
    assert (loaded.config.contrast, loaded.config.margin) == ("hinge", 0.5)


def test_text_encoder_can_start_from_any_bert_like_model(tokenizer, tmp_path):
    bert = BertModel(make_config(tokenizer))
    bert.save_pretrained(tmp_path / "bert")
    teacher = VidLanKDTeacher.from_text_pretrained(tmp_path / "bert", feature_size=FEATURE_SIZE).eval()
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(teacher.encode_text(ids), bert.eval()(ids).last_hidden_state)

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    roberta = RobertaForMaskedLM(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0, **shape))
    roberta.save_pretrained(tmp_path / "roberta")
    teacher = VidLanKDTeacher.from_text_pretrained(tmp_path / "roberta", FEATURE_SIZE, contrast="hinge_batch")
    teacher(**batch_of(tokenizer)).loss.backward()
    assert all(p.grad is not None for p in teacher.text_model.parameters() if p.requires_grad)


def test_training_changes_every_parameter(tmp_path, tokenizer):
    before = {n: p.clone() for n, p in make_teacher(tokenizer, dropout=0.0).named_parameters()}
    trainer = train("teacher", tmp_path)
    unmoved = [n for n, p in trainer.model.named_parameters() if torch.equal(p, before[n])]
    assert unmoved == []
    assert any(n.startswith("video_encoder.transformer") for n in before)


def test_teacher_learns_to_retrieve(tmp_path):
    """Each text names its clip, and recall rises from chance to almost 1."""
    tokenizer = make_tokenizer()
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(40, FEATURE_SIZE)).astype(np.float32)
    dataset = make_video_text(40).map(
        lambda row, i: {"video": str(i), "text": 4 * f"{WORDS[i]} ", "video_features": [prototypes[i].tolist()]},
        with_indices=True,
    )
    args = TeacherConfig(
        output_dir=str(tmp_path), max_steps=150, per_device_train_batch_size=20, learning_rate=3e-3, seed=0,
        use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = TeacherTrainer(
        model=make_teacher(tokenizer),
        args=args,
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=tokenizer,
    )
    assert trainer.evaluate()["eval_text_to_video_r@5"] < 0.35
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_text_to_video_r@5"] > 0.8 and metrics["eval_video_to_text_r@5"] > 0.8


def test_recall_counts_ties_as_half():
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.5], [1.0, 1.0, 1.0]])
    assert recall_at(scores, torch.eye(3), torch.arange(3), (1, 2, 3)) == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0})


def test_recall_in_parts_is_that_of_the_full_matrix_of_scores():
    generator = torch.Generator().manual_seed(0)
    text, video = (torch.randint(-3, 4, (40, 5), generator=generator).float() for _ in range(2))  # many ties
    videos = torch.randint(0, 15, (40,), generator=generator)
    scores = (text @ video.T).double().numpy()
    above = []
    for i in range(40):
        others = [j for j in range(40) if j != i and videos[j] != videos[i]]
        above.append(sum((scores[i, j] > scores[i, i]) + 0.5 * (scores[i, j] == scores[i, i]) for j in others))
    expected = {k: np.mean([count < k for count in above]) for k in (1, 5, 10)}
    for rows in (1, 7, 40, 2048):
        assert recall_at(text, video, videos, rows=rows) == pytest.approx(expected), rows
    assert len(set(expected.values())) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video_features": np.zeros((2, FEATURE_SIZE + 1))}, "width 7.*6"),
        ({"video_features": np.zeros((0, FEATURE_SIZE))}, "at least one step"),
        ({"video_features": np.full((2, FEATURE_SIZE), np.nan)}, "not finite"),
        ({"text": "   "}, "0 tokens"),
        ({"text": "word1 " * 127}, "127 tokens.*126"),
    ],
)
def test_invalid_sample_is_an_error_that_names_it(tokenizer, change, message):
    samples = EpochDataset(make_video_text(4)).__getitems__([0, 1, 2, 3])
    samples[2].update(change)
    with pytest.raises(ValueError, match=f"'v2'.*{message}|{message}.*'v2'"):
        VideoTextCollator(tokenizer, feature_size=FEATURE_SIZE)(samples)


def test_text_of_the_maximum_length_is_not_truncated(tokenizer):
    samples = EpochDataset(make_video_text(4)).__getitems__([0, 1, 2, 3])
    samples[2]["text"] = "word1 " * 126
    assert VideoTextCollator(tokenizer)(samples)["input_ids"].shape == (4, 128)


def test_batch_of_one_video_is_an_error(tokenizer):
    samples = EpochDataset(make_video_text(2)).__getitems__([0, 1])
    with pytest.raises(ValueError, match="'v0'.*negative"):
        VideoTextCollator(tokenizer)(samples)


def test_long_clips_are_subsampled_evenly(tokenizer):
    samples = EpochDataset(make_video_text(4)).__getitems__([0, 1, 2, 3])
    samples[1]["video_features"] = np.arange(1000)[:, None].repeat(FEATURE_SIZE, 1)
    batch = VideoTextCollator(tokenizer, max_video_length=10)(samples)
    assert batch["video_features"].shape[1] == 10
    steps = batch["video_features"][1, :, 0]
    assert steps[0] == 0 and steps[-1] == 999 and (steps.diff() - 111).abs().max() <= 1


def test_wrong_feature_width_or_number_of_steps_is_an_error_of_the_model(tokenizer):
    with pytest.raises(ValueError, match="width 9.*6"):
        make_teacher(tokenizer).encode_video(torch.zeros(1, 2, 9))
    with pytest.raises(ValueError, match="400 steps.*384"):
        make_teacher(tokenizer).encode_video(torch.zeros(1, 400, FEATURE_SIZE))


def test_clip_subsampled_to_one_step_is_its_middle_step(tokenizer):
    samples = EpochDataset(make_video_text(4)).__getitems__([0, 1, 2, 3])
    samples[1]["video_features"] = np.arange(9)[:, None].repeat(FEATURE_SIZE, 1)
    batch = VideoTextCollator(tokenizer, max_video_length=1)(samples)
    assert batch["video_features"].shape[1] == 1 and batch["video_features"][1, 0, 0] == 4


@pytest.mark.parametrize(
    "design, logged_losses, untouched",
    [
        ({"losses": "mlm"}, {"mlm_loss"}, ()),
        ({"losses": "contrast"}, {"contrast_loss"}, ("text_model.cls.",)),
        ({"joint_size": 8, "contrast": "hinge", "margin": 0.5}, {"mlm_loss", "contrast_loss"}, ()),
    ],
)
def test_teacher_trains_with_its_configured_losses_and_loads_again(
    tmp_path, tokenizer, design, logged_losses, untouched
):
    """Every parameter with a gradient changes, since DDP refuses parameters without one."""
    before = {n: p.clone() for n, p in make_teacher(tokenizer, dropout=0.0, **design).named_parameters()}
    trainer = train("teacher", tmp_path, design=design)
    (entry, *_) = trainer.state.log_history
    assert {n for n in entry if n.endswith("_loss")} == logged_losses
    assert entry["loss"] == pytest.approx(sum(entry[name] for name in logged_losses), rel=1e-5)
    for name, parameter in trainer.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        tied = name.endswith("embeddings.weight")
        assert moved == parameter.requires_grad and (tied or moved != name.startswith(untouched or "nothing")), name
    metrics = trainer.evaluate()
    assert ("eval_text_to_video_r@1" in metrics) == ("contrast_loss" in logged_losses)
    trainer.save_model()
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and loaded.config.losses == trainer.model.config.losses
    batch = trainer.model_inputs(batch_of(tokenizer))
    assert torch.equal(loaded.eval()(**batch).loss, trainer.model.eval()(**batch).loss)


def test_tokens_and_clips_are_compared_in_the_joint_space(tokenizer):
    teacher, batch = make_teacher(tokenizer, joint_size=8).eval(), batch_of(tokenizer)
    output = teacher(**batch)
    assert output.video_embeds.shape == output.text_embeds.shape == (6, 8)
    tokens = teacher.unit_tokens(output.last_hidden_state)
    expected = teacher.contrast(tokens, output.video_embeds, batch["attention_mask"], batch["video_ids"])
    assert output.losses["contrast"] == expected and output.last_hidden_state.shape[-1] == 32


def test_encoding_video_without_a_video_encoder_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="no video encoder"):
        make_teacher(tokenizer, losses="mlm").encode_video(torch.zeros(1, 2, FEATURE_SIZE))
    with pytest.raises(ValueError, match="'video'.*contrast\\+mlm"):
        make_teacher(tokenizer, losses="video")
    with pytest.raises(ValueError, match="joint_size is 0"):
        make_teacher(tokenizer, joint_size=0)


def test_unknown_contrast_and_invalid_batch_sizes_are_errors(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="'triplet'.*hinge"):
        make_teacher(tokenizer, contrast="triplet")
    with pytest.raises(ValueError, match="at least 2"):
        train("teacher", tmp_path, per_device_train_batch_size=1)
    with pytest.raises(ValueError, match="48 samples.*64"):
        train("teacher", tmp_path, per_device_train_batch_size=64)


def test_order_does_not_depend_on_how_many_places_are_listed_at_a_time(monkeypatch):
    expected = list(EpochSampler(50, 8, seed=3))
    monkeypatch.setattr(sampler_module, "LISTED", 7)
    assert list(EpochSampler(50, 8, seed=3)) == expected


def test_order_has_complete_steps_and_depends_on_the_epoch_only():
    orders = []
    for epoch in (0, 1):
        sampler = EpochSampler(50, 8, seed=3)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler) == 48 and len({k % 50 for k in keys}) == 48
        assert all(k // 50 == epoch for k in keys)
        assert keys == list(sampler)
        orders.append([k % 50 for k in keys])
    assert orders[0] != orders[1]


def test_package_imports_with_torch_and_transformers_alone():
    blocked = ["accelerate", "datasets", "evaluate", "deepspeed", "av", "sklearn", "matplotlib"]
    code = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "import vidlankd_hf\n"
        "vidlankd_hf.VidLanKDStudent(vidlankd_hf.bert_config('tiny', vocab_size=30))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
