"""A tiny random model of each vision architecture of transformers, with its own image processor."""

import json

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel

SIDE = 32  # pixels
TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {"image_size": SIDE, "patch_size": 16}
VIT = {**TOWER, **PATCHES}
TEXT = {**TOWER, "vocab_size": 99, "max_position_embeddings": 16}
DUAL = {"text_config": TEXT, "vision_config": VIT, "projection_dim": 16}
SWIN = {"image_size": SIDE, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
PYRAMID = {
    "image_size": SIDE, "num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "patch_sizes": [4, 2],
    "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
}  # fmt: skip
PATCHED_VIDEO = {**VIT, "num_frames": 4, "tubelet_size": 2}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# Their classes need torchvision, which has no build for CPUs alone. This is what the Hub has for facebook/dinov3-* and
# facebook/vjepa2-*, with smaller sizes.
PLAIN = {
    "do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **IMAGENET,
}  # fmt: skip
DINOV3 = {
    **PLAIN, "image_processor_type": "DINOv3ViTImageProcessorFast", "do_center_crop": None, "crop_size": None,
    "size": {"height": SIDE, "width": SIDE},
}  # fmt: skip
VJEPA = {
    **PLAIN, "video_processor_type": "VJEPA2VideoProcessor", "do_center_crop": True, "size": {"shortest_edge": 36},
    "crop_size": {"height": SIDE, "width": SIDE},
}  # fmt: skip
VIDEOPRISM = {
    **PLAIN, "video_processor_type": "LlavaOnevisionVideoProcessor", "size": {"height": SIDE, "width": SIDE},
}  # fmt: skip

# The settings of each architecture's configuration, and the width of its features.
IMAGES = {
    "aimv2": (DUAL, 16),
    "aimv2_vision_model": (VIT, 32),
    "altclip": ({**DUAL, "text_config": {**TEXT, "project_dim": 32}}, 16),
    "beit": (VIT, 32),
    "bit": ({"embedding_size": 8, **STAGES, "num_groups": 2}, 16),
    "blip": ({**DUAL, "vision_config": {**VIT, "initializer_range": 0.02}}, 16),
    "chinese_clip": (DUAL, 16),
    "clip": (DUAL, 16),
    "clipseg": (DUAL, 16),
    "convnext": ({"num_stages": 2, **STAGES}, 16),
    "convnextv2": ({"num_stages": 2, **STAGES}, 16),
    "cvt": ({"embed_dim": [8, 16, 16], "num_heads": [1, 1, 1], "depth": [1, 2, 3]}, 16),
    "data2vec-vision": (VIT, 32),
    "deit": (VIT, 32),
    "dinov2": (VIT, 32),
    "dinov2_with_registers": (VIT, 32),
    "dinov3_convnext": ({"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}, 16),
    "dinov3_vit": (VIT, 32),
    "dpt": ({**VIT, "pooler_output_size": 32}, 32),
    "efficientnet": (
        {
            "image_size": SIDE, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320,
            "in_channels": [32, 16], "out_channels": [16, 24], "kernel_sizes": [3, 3], "strides": [1, 2],
            "num_block_repeats": [1, 1], "expand_ratios": [1, 2],
        },
        320,
    ),
    "flava": (
        {
            "image_config": VIT, "text_config": TEXT, "multimodal_config": TOWER, "projection_dim": 16,
            "hidden_size": 32,
        },
        16,
    ),
    "focalnet": ({"image_size": SIDE, "embed_dim": 8, "depths": [1, 1], "focal_levels": [1, 1],
                  "focal_windows": [3, 3]}, 16),
    "groupvit": (
        {
            "text_config": TEXT, "projection_dim": 16, "projection_intermediate_dim": 16,
            "vision_config": {
                "hidden_size": 32, "intermediate_size": 32, "depths": [1, 1], "num_hidden_layers": 2,
                "num_group_tokens": [4, 0], "num_output_groups": [4, 4], "num_attention_heads": 2, **PATCHES,
            },
        },
        16,
    ),
    "hiera": (
        {
            "image_size": [SIDE, SIDE], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "num_query_pool": 1,
            "masked_unit_size": [2, 2], "masked_unit_attention": [True, False],
        },
        16,
    ),
    "ijepa": (VIT, 32),
    "levit": (
        {
            "image_size": SIDE, "hidden_sizes": [16, 16, 16], "num_attention_heads": [1, 1, 1], "depths": [1, 1, 1],
            "key_dim": [8, 8, 8], "patch_size": 16,
        },
        16,
    ),
    "metaclip_2": (DUAL, 16),
    "mlcd": (VIT, 32),
    "mobilenet_v1": ({"image_size": SIDE, "depth_multiplier": 0.25}, 256),
    "mobilenet_v2": ({"image_size": SIDE, "depth_multiplier": 0.25, "finegrained_output": False}, 320),
    "mobilevit": (
        {
            "image_size": SIDE, "output_stride": 16, "hidden_sizes": [8, 8, 8], "num_attention_heads": 2,
            "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
        },
        16,
    ),
    "mobilevitv2": ({"image_size": SIDE, "output_stride": 16, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1],
                     "initializer_range": 0.3}, 128),
    "owlvit": (DUAL, 16),
    "pixio": ({**VIT, "n_cls_tokens": 2}, 32),
    "poolformer": ({"num_encoder_blocks": 2, **STAGES, "patch_sizes": [7, 3], "strides": [4, 2],
                    "padding": [2, 1]}, 16),
    "pvt": ({**PYRAMID, "sequence_reduction_ratios": [2, 1]}, 16),
    "pvt_v2": ({**PYRAMID, "sr_ratios": [2, 1]}, 16),
    "regnet": ({"embedding_size": 8, **STAGES, "groups_width": 4}, 16),
    "resnet": ({"embedding_size": 8, **STAGES, "layer_type": "basic"}, 16),
    "segformer": ({**PYRAMID, "sr_ratios": [2, 1]}, 16),
    "siglip": (DUAL, 32),
    "swiftformer": ({"image_size": SIDE, "depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16]}, 16),
    "swin": (SWIN, 16),
    "swinv2": (SWIN, 16),
    "vit": (VIT, 32),
    "vit_mae": ({**VIT, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1,
                 "decoder_intermediate_size": 16}, 32),
    "vit_msn": (VIT, 32),
}  # fmt: skip
# The same for videos, with the number of frames.
VIDEOS = {
    "timesformer": ({**VIT, "num_frames": 4}, 32, 4),
    "videomae": (PATCHED_VIDEO, 32, 4),
    "videoprism": (
        {
            "text_config": TEXT,
            "vision_config": {
                **VIT, "num_frames": 4, "tubelet_size": [1, 16, 16], "num_spatial_layers": 1,
                "num_temporal_layers": 1, "num_auxiliary_layers": 1,
            },
        },
        32,
        4,
    ),
    "vivit": ({**VIT, "num_frames": 4, "tubelet_size": [2, 16, 16]}, 32, 4),
    "vjepa2": (
        {
            **TOWER, "crop_size": SIDE, "patch_size": 16, "frames_per_clip": 8, "tubelet_size": 2, "mlp_ratio": 1,
            "num_pooler_layers": 1, "pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2,
        },
        32,
        4,
    ),
    "xclip": (
        {
            "text_config": TEXT, "projection_dim": 16, "mit_hidden_size": 16, "prompt_layers": 1,
            "prompt_num_attention_heads": 2,
            "vision_config": {
                **VIT, "num_frames": 4, "mit_hidden_size": 16, "mit_intermediate_size": 16,
                "mit_num_attention_heads": 2,
            },
        },
        16,
        4,
    ),
}  # fmt: skip
BIT = {**PLAIN, "image_processor_type": "BitImageProcessor", "do_convert_rgb": True, "resample": 3}
BIT |= {"size": {"shortest_edge": 37}, "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}}
WRITTEN = {  # processors that need torchvision
    "dinov3_vit": ("preprocessor_config.json", DINOV3),
    "dinov3_convnext": ("preprocessor_config.json", DINOV3),
    "vjepa2": ("video_preprocessor_config.json", VJEPA),
    "videoprism": ("video_preprocessor_config.json", VIDEOPRISM),
}
# These crop to the size that they are given, after they have resized to a larger one.
CROPPED_BY_SIZE = ("ConvNextImageProcessor", "LevitImageProcessor", "PoolFormerImageProcessor")


def save_family(folder, kind):
    """Saves a tiny random model of an architecture with its image processor, for pictures of 32 x 32."""
    torch.manual_seed(0)
    settings = {**IMAGES, **VIDEOS}[kind][0]
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings), dtype=torch.float32)
    model.eval().save_pretrained(folder)
    if kind in WRITTEN:
        name, processor = WRITTEN[kind]
        (folder / name).write_text(json.dumps(processor))
        return folder
    # transformers knows the processors of most architectures. The Hub's models with registers name DINOv2's.
    (folder / "preprocessor_config.json").write_text(json.dumps(BIT if kind == "dinov2_with_registers" else {}))
    processor = json.loads(AutoImageProcessor.from_pretrained(folder).to_json_string())
    cropped = processor["image_processor_type"].removesuffix("Fast") in CROPPED_BY_SIZE
    edge = {"shortest_edge": SIDE if cropped else SIDE + 5}
    processor["size"] = edge if "shortest_edge" in processor["size"] else {"height": SIDE, "width": SIDE}
    if processor.get("do_center_crop"):
        processor["crop_size"] = {"height": SIDE, "width": SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


# Architectures whose main input is pictures, that have an image processor, and that are in neither table.
ABSENT = {
    "their outputs are objects, masks, points or characters, not features of a picture": (
        "conditional_detr", "deformable_detr", "deimv2", "detr", "edgetam", "efficientloftr", "grounding-dino",
        "lightglue", "lw_detr", "mask2former", "maskformer", "mgp-str", "mm-grounding-dino", "omdet-turbo",
        "pp_doclayout_v3", "pp_doclayout_v4", "pp_ocrv5_mobile_rec", "pp_ocrv5_server_rec", "pp_ocrv6_medium_det",
        "pp_ocrv6_small_det", "pp_ocrv6_small_rec", "pp_ocrv6_tiny_rec", "rf_detr", "rt_detr", "sam", "sam2",
        "sam2_video", "sam3", "sam3_lite_text", "sam3_tracker", "sam3_tracker_video", "sam3_video", "sam_hq",
        "table-transformer", "yolos",
    ),
    "they make other pictures": ("seggpt", "swin2sr", "uvdoc"),
    "they need a text too": ("blip-2", "instructblip", "instructblipvideo", "kosmos-2"),
    "the resolution depends on the size of the picture, or pictures are padded": (
        "depth_pro", "donut-swin", "glpn", "pixtral", "textnet",
    ),
    "they or their processors need another library: natten, timm, torchvision": ("dinat", "sapiens2", "timm_wrapper"),
}  # fmt: skip
