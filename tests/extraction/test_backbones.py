"""Every vision architecture of transformers gives features with its own image processor, or is refused."""

import json

import numpy as np
import pytest
import torch
import transformers
from backbone_files import PROCESSOR, save_backbone
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, ResNetConfig, ResNetModel, Siglip2Config, Siglip2Model
from transformers.utils import is_timm_available, is_torchvision_available
from transformers.video_processing_utils import BaseVideoProcessor
from vision_families import ABSENT, IMAGES, SIDE, TEXT, TOWER, VIDEOS, WRITTEN, save_family

from vidlankd_hf.extraction import pixels
from vidlankd_hf.extraction.backbones import Backbone, normalized
from vidlankd_hf.extraction.pixels import resized
from vidlankd_hf.extraction.processors import load_processor, pixel_settings
from vidlankd_hf.extraction.streams import Stream, with_processors

QUICK = ("vit", "convnextv2", "dinov3_vit", "siglip", "videomae", "timesformer", "vjepa2", "xclip")
KINDS = [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in (*IMAGES, *VIDEOS)]


def pictures(frames, height=48, width=72):
    """Clips `[2, frames, height, width, 3]` of coarse noise, which resizing keeps."""
    noise = np.random.default_rng(0).integers(0, 256, (2, frames, height // 8, width // 8, 3), np.uint8)
    return noise.repeat(8, axis=2).repeat(8, axis=3)


def shown(clips, settings):
    """What the decoding children send."""
    return np.stack([[resized(image, settings) for image in clip] for clip in clips])


def own_values(folder, clips):
    """The pixel values that the backbone's own processor makes of clips."""
    processor = load_processor(str(folder))
    if isinstance(processor, BaseVideoProcessor):
        return processor([*clips], return_tensors="pt")["pixel_values_videos"]
    return processor([*clips.reshape(-1, *clips.shape[2:])], return_tensors="pt")["pixel_values"]


def expected_features(model, values):
    """The features by the definition in the docs: what the model pools, else the mean over its last hidden states."""
    kind = model.config.model_type
    with torch.no_grad():
        if kind == "vjepa2":
            return model.get_vision_features(values).mean(1)
        if kind == "videoprism":
            return model.video_model(pixel_values_videos=values).pooler_output.squeeze(1)
        if kind == "xclip":
            return model.get_video_features(pixel_values=values).pooler_output
        if kind == "flava":
            return model.get_image_features(pixel_values=values).pooler_output.mean(1)
        if "text_config" in model.config.to_dict():
            return model.get_image_features(pixel_values=values).pooler_output
        output = model(pixel_values=values)
    if getattr(output, "pooler_output", None) is not None:
        return output.pooler_output.flatten(1)
    states = output.last_hidden_state
    return states.mean(1) if states.ndim == 3 else states.mean((2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_gives_features_of_pictures_from_its_own_processor(tmp_path, kind, monkeypatch):
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    if not is_torchvision_available():  # the processors resize with Pillow then
        monkeypatch.setattr(pixels, "TORCH_FILTERS", {})
    _, width, *frames = {**IMAGES, **VIDEOS}[kind]
    length = frames[0] if frames else 1
    folder = save_family(tmp_path / kind, kind)
    backbone = Backbone(Stream("s", folder, 1.0, length), "cpu")
    assert backbone.width == width
    clips = pictures(length)
    seen = shown(clips, backbone.pixels)
    assert seen.shape[2:4] == (SIDE, SIDE)
    ours = normalized(torch.from_numpy(seen), backbone.pixels)
    if kind in WRITTEN and not is_torchvision_available():
        held = WRITTEN[kind][1]
        mean, std = (torch.tensor(held[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
        values = (torch.from_numpy(seen).movedim(-1, -3) / 255 - mean) / std
    else:
        values = own_values(folder, clips).reshape(ours.shape)
    # With torchvision, DINOv3 resizes before it rounds, and ViViT resizes with Pillow.
    rounds_otherwise = is_torchvision_available() and kind in ("dinov3_convnext", "dinov3_vit", "vivit")
    tolerance = 0.02 if rounds_otherwise else 2e-5
    torch.testing.assert_close(ours, values, atol=tolerance, rtol=tolerance)
    model = AutoModel.from_pretrained(folder).eval()
    if kind == "vit_mae":
        model.config.mask_ratio = 0.0
    expected = expected_features(model, ours if frames else ours[:, 0])
    assert expected.std(0).max() > 0  # the pictures differ
    features = backbone(seen)
    torch.testing.assert_close(features, expected.half(), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(backbone(seen), features, atol=1e-3, rtol=1e-3)  # nothing is random


@pytest.mark.slow  # imports every model
def test_every_architecture_with_a_vision_tower_of_its_own_is_in_the_table():
    """What is not in it needs other inputs than pictures, or another library."""
    from transformers import MODEL_MAPPING
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    known, unknown = {*IMAGES, *VIDEOS}.union(*ABSENT.values()), set()
    for kind in sorted({*IMAGE_PROCESSOR_MAPPING_NAMES, *VIDEO_PROCESSOR_MAPPING_NAMES} & {*MODEL_MAPPING_NAMES}):
        config = CONFIG_MAPPING[kind]
        models = MODEL_MAPPING[config] if config in MODEL_MAPPING else ()
        for model in models if isinstance(models, tuple) else (models,):
            if kind not in known and getattr(model, "main_input_name", "") in ("pixel_values", "pixel_values_videos"):
                unknown.add(kind)
    assert not unknown, f"Add these architectures to the tables in vision_families.py: {sorted(unknown)}"


def test_a_processor_with_patches_of_variable_number_is_refused(tmp_path):
    vision = {**TOWER, "num_patches": 4, "patch_size": 16}
    model = Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=vision))
    for kind in ("Siglip2ImageProcessor", "Qwen2VLImageProcessor"):
        folder = save_backbone(tmp_path / kind, model)
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind}))
        with pytest.raises(ValueError, match="number of patches that depends on its size.*siglip2-base-patch16-224"):
            Backbone(Stream("frame", folder, 1.0), "cpu")
    # With any other processor, the model says what it lacks.
    other = save_backbone(tmp_path / "other", model)
    with pytest.raises(ValueError, match="siglip2.* gives no features for 1 frame of 32 x 32: .*--processors"):
        Backbone(Stream("frame", other, 1.0), "cpu")


def test_another_processor_is_used_where_the_model_has_none_or_an_unknown_one(tmp_path):
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"))
    model = save_backbone(tmp_path / "model", resnet, image_processor_type="ProcessorOfTheFuture")
    with pytest.raises(ValueError, match="The image processor of .* cannot be loaded: .*--processors STREAM=FOLDER"):
        Backbone(Stream("frame", model, 1.0), "cpu")
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="--processors STREAM=FOLDER"):
        Backbone(Stream("frame", model, 1.0), "cpu")
    values = tmp_path / "values"
    values.mkdir()
    (values / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (stream,) = with_processors([Stream("frame", model, 1.0)], [f"frame={values}"])
    backbone = Backbone(stream, "cpu")
    assert backbone.pixels["size"] == [32, 32] and backbone.pixels["mean"] == PROCESSOR["image_mean"]
    with pytest.raises(ValueError, match="write name=FOLDER, with the name of a stream \\(frame\\)"):
        with_processors([stream], [f"clip={values}"])


def test_settings_that_an_unavailable_class_would_fill_in_are_asked_for(tmp_path):
    folder = save_family(tmp_path / "v", "vjepa2")
    path = folder / "video_preprocessor_config.json"
    held = json.loads(path.read_text())
    for name in ("size", "crop_size", "image_mean", "rescale_factor"):
        path.write_text(json.dumps({key: value for key, value in held.items() if key != name}))
        processor = load_processor(str(folder))
        if not callable(processor):
            with pytest.raises(ValueError, match=f"has no setting '{name}'"):
                pixel_settings(processor)


def test_clips_have_the_length_that_the_model_takes(tmp_path):
    vjepa, xclip = (save_family(tmp_path / kind, kind) for kind in ("vjepa2", "xclip"))
    assert Backbone(Stream("clip", vjepa, 24.0, 16), "cpu").width == 32  # trained with 8 frames
    with pytest.raises(ValueError, match="a multiple of 2 frames .it was trained with 8.*clips of 3"):
        Backbone(Stream("clip", vjepa, 24.0, 3), "cpu")
    with pytest.raises(ValueError, match="takes 4 frames, but the 'clip' stream has clips of 16"):
        Backbone(Stream("clip", xclip, 24.0, 16), "cpu")


def test_timm_models_work_or_name_the_library_that_is_missing(tmp_path):
    cfg = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 0.9, "num_classes": 10,
           "interpolation": "bicubic", "crop_mode": "center"}  # fmt: skip
    arguments = {"img_size": SIDE}
    config = {"architecture": "test_vit", "num_classes": 10, "pretrained_cfg": cfg, "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if not is_timm_available():
        with pytest.raises(ValueError, match="needs a library that is not installed: .*timm"):
            Backbone(Stream("frame", tmp_path, 1.0), "cpu")
        return
    AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)).eval().save_pretrained(tmp_path)
    backbone = Backbone(Stream("frame", tmp_path, 1.0), "cpu")
    clips = pictures(1)
    seen = shown(clips, backbone.pixels)
    ours, values = normalized(torch.from_numpy(seen), backbone.pixels)[:, 0], own_values(tmp_path, clips)
    levels = (ours - values).abs() * 255 * 0.2
    assert levels.max() < 2.01  # timm resizes with Pillow
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tmp_path).eval()(ours).pooler_output
    torch.testing.assert_close(backbone(seen), expected.half(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("resample", [1, 2, 3], ids=["lanczos", "bilinear", "bicubic"])
@pytest.mark.parametrize("size, crop", [([32, 40], None), (40, [32, 30]), (None, [20, 30])])
def test_images_that_are_resized_together_are_those_resized_alone(size, crop, resample):
    clips, settings = pictures(frames=3), {"size": size, "crop": crop, "resample": resample}
    together = resized(clips, settings)
    assert together.shape == (2, 3, *(crop or size), 3) and np.array_equal(together, shown(clips, settings))


def test_timm_settings_are_those_of_its_evaluation_transform():
    class Processor:
        data_config = {"input_size": (3, 224, 224), "crop_pct": 0.95, "crop_mode": "center",
                       "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}  # fmt: skip

    settings = pixel_settings(Processor())
    assert settings["size"] == 235 and settings["crop"] == [224, 224] and settings["resample"] == 3
    image = np.zeros((240, 235, 3), np.uint8)
    image[:, 6] = 255  # torchvision crops 11 surplus columns at round(5.5) = 6
    assert resized(image, {**settings, "size": None})[:, 0].all()
    squashed = pixel_settings(type("P", (), {"data_config": {**Processor.data_config, "crop_mode": "squash"}})())
    assert squashed["size"] == [235, 235]
    with pytest.raises(ValueError, match="crop_mode 'border'"):
        pixel_settings(type("P", (), {"data_config": {**Processor.data_config, "crop_mode": "border"}})())
