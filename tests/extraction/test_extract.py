import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_files import PROCESSOR
from transformers import (
    AutoImageProcessor,
    CLIPConfig,
    CLIPModel,
    ResNetModel,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
)

from vidlankd_hf.experiments.world.render import Look, render_scene
from vidlankd_hf.extraction import Stream, extract_features
from vidlankd_hf.extraction.backbones import Backbone, pooled_output, to_pixel_values
from vidlankd_hf.extraction.decode import VideoReader


def naive_features(path, frame_stream, clip_stream):
    """One forward pass per frame or clip, with the models' own image processors."""
    by_rate = {0: [], 1: []}
    for i, time, image in VideoReader(path).sample([1, 24]):
        by_rate[i].append((time, image))
    streams = {}
    for name, folder, model_class, length, frames in [
        ("frame", frame_stream.model, ResNetModel, 1, by_rate[0]),
        ("clip", clip_stream.model, VideoMAEModel, 16, by_rate[1]),
    ]:
        processor, model = AutoImageProcessor.from_pretrained(folder), model_class.from_pretrained(folder).eval()
        starts = list(range(0, len(frames) - length + 1, length))
        if not starts:
            starts = [0]
        elif starts[-1] + length < len(frames):
            starts.append(len(frames) - length)
        features, times = [], []
        for start in starts:
            stamps, images = zip(*frames[start : start + length])
            times.append((stamps[0] + stamps[-1]) / 2)
            images = [*images, *[images[-1]] * (length - len(images))]
            pixels = processor([images] if length > 1 else images, return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                features.append(pooled_output(model, pixels.reshape(1, length, 3, 32, 32).squeeze(1))[0])
        streams[name] = torch.stack(features), torch.tensor(times)
    return streams


def test_features_equal_those_of_the_backbones_applied_frame_by_frame(tmp_path, videos, backbones):
    store = extract_features(videos, tmp_path / "features", backbones)
    assert store.video_ids == ["0.mp4", "1.mp4", "2.mp4"]
    assert store.feature_size == 12 + 16
    for video in store.video_ids:
        streams = naive_features(videos / video, *backbones)
        values, times = streams["frame"]
        features, read_times = store.read(video)
        assert torch.equal(read_times, times)
        torch.testing.assert_close(features[:, :12].float(), values, atol=5e-3, rtol=5e-3)
        clip_values, clip_times = streams["clip"]
        for step, time in enumerate(times):
            nearest = (clip_times - time).abs().argmin()
            torch.testing.assert_close(features[step, 12:].float(), clip_values[nearest], atol=5e-3, rtol=5e-3)


def test_every_frame_is_in_a_clip_whose_timestamp_is_its_middle(tmp_path, videos, backbones):
    store = extract_features(videos, tmp_path / "features", backbones)
    index = {entry["video"]: entry for entry in map(json.loads, open(store.folder / "index.jsonl"))}
    # 25, 12 and 5 frames at 12 a second are 50, 24 and 10 at 24 a second.
    assert {video: entry["streams"]["clip"][1] for video, entry in index.items()} == {
        "0.mp4": 4,
        "1.mp4": 2,
        "2.mp4": 1,
    }
    assert {video: entry["streams"]["frame"][1] for video, entry in index.items()} == {
        "0.mp4": 3,
        "1.mp4": 1,
        "2.mp4": 1,
    }
    from safetensors.torch import load_file

    times = load_file(store.folder / "shard-00000.safetensors")["clip.times"] * 24
    torch.testing.assert_close(times, torch.tensor([7.5, 23.5, 39.5, 41.5, 7.5, 15.5, 4.5]))


@pytest.mark.slow
def test_batch_size_and_order_of_paths_change_nothing(tmp_path, videos, backbones):
    one = extract_features(videos, tmp_path / "one", backbones, batch_size=1)
    paths = sorted(videos.glob("*.mp4"), reverse=True)
    many = extract_features(paths, tmp_path / "many", backbones, batch_size=64)
    pattern = extract_features(str(videos / "*.mp4"), tmp_path / "pattern", backbones, batch_size=5)
    for store in (many, pattern):
        assert store.video_ids == one.video_ids
        for video in one.video_ids:
            assert store.duration(video) == one.duration(video)
            torch.testing.assert_close(store.read(video)[0], one.read(video)[0], atol=2e-3, rtol=2e-3)


def test_a_finished_folder_is_unchanged_and_refuses_other_settings_or_videos(tmp_path, videos, backbones, caplog):
    frame, clip = backbones
    output_dir = tmp_path / "features"
    extract_features(videos, output_dir, [frame, clip])
    before = {path: path.stat().st_mtime_ns for path in output_dir.glob("[!et]*")}
    caplog.clear()
    extract_features(videos, output_dir, [frame, clip])
    assert "nothing to do" in caplog.text
    for streams, words in [
        ([frame], "streams .*clip.*, not"),
        ([clip, frame], "the order of the streams"),
        ([frame, Stream("clip", clip.model, 12.0, 16)], "clip has frame_rate 24.0, not 12.0"),
        ([Stream("frame", shutil.copytree(frame.model, tmp_path / "other"), 1.0), clip], "frame has model .*other"),
    ]:
        with pytest.raises(ValueError, match=f"has features with other settings .*{words}"):
            extract_features(videos, output_dir, streams)
    with pytest.raises(ValueError, match="precision 'fp32', not 'bf16'"):
        extract_features(videos, output_dir, [frame, clip], precision="bf16")
    with pytest.raises(ValueError, match="differ in 1 video.*2.mp4"):
        extract_features([videos / "0.mp4", videos / "1.mp4"], output_dir, [frame, clip])
    assert {path: path.stat().st_mtime_ns for path in output_dir.glob("[!et]*")} == before


def test_other_weights_under_the_same_name_are_refused(tmp_path, videos, backbones):
    model = shutil.copytree(backbones[0].model, tmp_path / "model")
    streams = [Stream("frame", str(model), 1.0)]
    extract_features(videos, tmp_path / "features", streams)
    other = ResNetModel.from_pretrained(model)
    with torch.no_grad():
        other.embedder.embedder.convolution.weight[0, 0, 0, 0] += 1
    other.save_pretrained(model)
    with pytest.raises(ValueError, match="other settings .*weights"):
        extract_features(videos, tmp_path / "features", streams)


@pytest.mark.slow  # 15 s and more
@pytest.mark.parametrize("precision, tolerance", [("bf16", 0.03), ("fp16", 0.01)])
def test_lower_precision_gives_similar_but_different_features(tmp_path, videos, backbones, precision, tolerance):
    full = extract_features(videos, tmp_path / "full", backbones)
    low = extract_features(videos, tmp_path / "low", backbones, precision=precision)
    one, other = full.read("0.mp4")[0].float(), low.read("0.mp4")[0].float()
    assert not torch.equal(one, other) and (one - other).norm() < tolerance * one.norm()
    assert all(stream["precision"] == precision for stream in low.streams.values())


def test_any_streams_at_any_rates(tmp_path, videos, backbones):
    frame, clip = backbones
    streams = [
        Stream("fast", frame.model, 4.0),
        Stream("slow", clip.model, 8.0, 16),
        Stream("frame", frame.model, 1.0),
    ]
    store = extract_features(videos, tmp_path / "features", streams)
    index = {entry["video"]: entry["streams"] for entry in map(json.loads, open(store.folder / "index.jsonl"))}
    # 25, 12 and 5 frames at 12 a second.
    assert {video: [lengths[name][1] for name in lengths] for video, lengths in index.items()} == {
        "0.mp4": [9, 2, 3],
        "1.mp4": [4, 1, 1],
        "2.mp4": [2, 1, 1],
    }
    features, times = store.read("0.mp4")
    assert times.tolist() == [i / 4 for i in range(9)] and features.shape == (9, 12 + 16 + 12)
    torch.testing.assert_close(features[::4, :12], features[::4, 28:], atol=2e-3, rtol=2e-3)  # the same pictures


@pytest.mark.parametrize(
    "text, stream",
    [
        ("frame=microsoft/resnet-152@1", Stream("frame", "microsoft/resnet-152", 1.0)),
        ("clip=a@b/c=d@24x16", Stream("clip", "a@b/c=d", 24.0, 16)),
        ("slow=m@0.5", Stream("slow", "m", 0.5)),
    ],
)
def test_streams_are_parsed(text, stream):
    assert Stream.parse(text) == stream


@pytest.mark.parametrize("text", ["resnet", "frame=resnet", "frame=resnet@x16", "a b=m@1", "frame=m@1.0.0", "f=m@0"])
def test_invalid_streams_are_refused(text):
    with pytest.raises(ValueError, match="stream|Stream|float"):
        Stream.parse(text)


def test_no_videos_and_equal_file_names_are_refused(tmp_path, videos, backbones):
    with pytest.raises(ValueError, match="No videos in"):
        extract_features(tmp_path, tmp_path / "features", backbones)
    with pytest.raises(ValueError, match="No videos in"):
        extract_features(tmp_path / "nowhere", tmp_path / "features", backbones)
    again = shutil.copytree(videos, tmp_path / "again")
    with pytest.raises(ValueError, match="same id"):
        extract_features([videos / "0.mp4", again / "0.mp4"], tmp_path / "features", backbones)


def test_image_backbones_refuse_clips_and_video_backbones_refuse_images(tmp_path, videos, backbones):
    frame, clip = backbones
    with pytest.raises(ValueError, match="takes 16 frames, but the 'frame' stream has clips of 1"):
        Backbone(Stream("frame", clip.model, 1.0), "cpu")
    with pytest.raises(ValueError, match="takes 1 frame, but the 'clip' stream has clips of 16"):
        Backbone(Stream("clip", frame.model, 24.0, 16), "cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 40},
            "crop_pct": 0.875,
            "resample": 3,
        },
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 0.875},
        {
            "image_processor_type": "VideoMAEImageProcessor",
            "size": {"shortest_edge": 48},
            "do_center_crop": True,
            "crop_size": {"height": 40, "width": 40},
        },
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 40},
            "do_center_crop": True,
            "crop_size": {"height": 40, "width": 40},
            "resample": 3,
        },
        {"resample": 1},
        {"do_resize": False, "do_normalize": False},
    ],
    ids=["vit", "convnext", "convnext 384", "videomae", "clip", "lanczos", "rescale only"],
)
@pytest.mark.parametrize("height, width", [(72, 120), (120, 72)])
def test_pixels_are_those_of_the_image_processor(tmp_path, settings, height, width):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **settings}))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    scene, _ = render_scene([Look("yellow", "triangle", "spins")], 3, np.random.default_rng(0))
    images = np.tile(scene, (1, 2, 2, 1))[:, :height, :width]
    pixels = to_pixel_values(images, processor)
    expected = processor(list(images), return_tensors="pt")["pixel_values"].reshape(pixels.shape)
    # Without torchvision the processor resizes with Pillow, which rounds differently.
    levels = (pixels - expected).abs() * (255 * min(PROCESSOR["image_std"]))
    assert levels.max() < 2.01 and levels.mean() < 0.25


def test_images_can_be_views_with_negative_strides(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), np.uint8)[:, ::-1, :, ::-1]
    assert torch.equal(to_pixel_values(images, processor), to_pixel_values(images.copy(), processor))


def test_unsupported_resizing_is_refused(tmp_path):
    settings = {**PROCESSOR, "size": {"longest_edge": 32, "shortest_edge": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="longest_edge"):
        to_pixel_values(np.zeros((1, 40, 50, 3), dtype=np.uint8), processor)


def test_pooling_takes_the_pooled_output_or_the_mean_over_tokens():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    pixels = torch.randn(2, 3, 32, 32)
    config = ViTConfig(image_size=32, patch_size=16, **sizes)
    pooled, unpooled = ViTModel(config).eval(), ViTModel(config, add_pooling_layer=False).eval()
    torch.testing.assert_close(pooled_output(pooled, pixels), pooled(pixels).pooler_output)
    torch.testing.assert_close(pooled_output(unpooled, pixels), unpooled(pixels).last_hidden_state.mean(1))
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    clip = CLIPModel(
        CLIPConfig(text_config={**sizes, "vocab_size": 10}, vision_config=vision, projection_dim=6)
    ).eval()
    expected = clip.visual_projection(clip.vision_model(pixels).pooler_output)
    torch.testing.assert_close(pooled_output(clip, pixels), expected)


def test_real_clips_of_four_containers_give_a_feature_for_every_second(tmp_path, backbones):
    if "VIDLANKD_DATA" not in os.environ:
        pytest.skip("VIDLANKD_DATA does not name a folder with real clips")
    folder = Path(os.environ["VIDLANKD_DATA"], "videos")
    paths = [path for path in folder.iterdir() if path.suffix != ".jsonl"]
    assert {path.suffix for path in paths} == {".webm", ".mp4", ".avi", ".mkv"}
    store = extract_features(folder, tmp_path / "features", backbones[:1])
    assert sorted(store.video_ids) == sorted(path.name for path in paths)
    for video in store.video_ids:
        features, times = store.read(video)
        assert times.tolist() == list(range(math.ceil(store.duration(video)))), video
        assert features.isfinite().all()
    captions = [json.loads(line) for line in open(folder / "captions.jsonl")]
    for caption in captions:
        features, _ = store.read(caption["video"], caption["start"] or 0.0, caption["end"])
        assert len(features) >= 1

    short = [path for path in paths if store.duration(path.name) < 3]
    both = extract_features(short, tmp_path / "both", backbones)
    index = {entry["video"]: entry for entry in map(json.loads, open(both.folder / "index.jsonl"))}
    for video, entry in index.items():
        assert entry["streams"]["clip"][1] == max(1, math.ceil(round(24 * both.duration(video)) / 16)), video


def test_processors_with_further_steps_are_refused(tmp_path, backbones):
    folder = shutil.copytree(backbones[0].model, tmp_path / "kept_ratio")
    settings = {"image_processor_type": "DPTImageProcessor", "keep_aspect_ratio": True}
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **settings}))
    with pytest.raises(ValueError, match="preprocesses images in an unsupported manner"):
        Backbone(Stream("frame", str(folder), 1.0), "cpu")
