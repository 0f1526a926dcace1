"""Trains a small CLIP on frames and captions of the grounded world's videos.

    python -m vidlankd_hf.experiments.ablations.clip --world outputs/world --output_dir outputs/clip

A frame shows colour and shape, but no motion. The image tower is first pre-trained like the world's ResNet, on
rendered scenes without nouns or captions; the text tower starts from random weights. The CLIP has its own tokenizer,
so that its students need another one.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, get_linear_schedule_with_warmup

from ...data.captions import read_captions
from ...inspection.inspect import FrameReader
from ...reliability.run_dir import RUN_FILE, command, versions
from ...utils.io import atomic_dir, atomic_write
from ..world.backbones import centered_pixels, pretrain_image_tower
from ..world.recipe import CLIP_RECIPE
from ..world.render import PICTURE_SIZE
from .tokenizer import train_clip_tokenizer

TEXT = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 8,
}


def build_clip(tokenizer: PreTrainedTokenizerFast, max_length: int) -> CLIPModel:
    """Creates a CLIP with random weights for a tokenizer and for pictures of the world."""
    text = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text |= {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": max_length}
    vision = {**VISION, "image_size": PICTURE_SIZE}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT["hidden_size"]))


def read_pairs(world: Path, shuffle_videos: bool) -> tuple[list[list[str]], list[np.ndarray]]:
    """Reads each video's captions, and the frame in the middle of each one's time `[captions, 64, 64, 3]` uint8.

    Args:
        world: Folder of the world.
        shuffle_videos: Control: give each video the captions of another one.
    """
    captions = defaultdict(list)
    for caption in read_captions(world / "captions.jsonl"):
        captions[caption.video].append(caption)
    texts, frames, reader = [], [], FrameReader()
    for video, several in tqdm(captions.items(), desc="reading frames", unit="video"):
        middles = [(caption.start + caption.end) / 2 for caption in several]
        shown = reader.frames_at(world / "videos" / video, middles)
        texts.append([caption.text for caption in several])
        frames.append(np.stack([np.asarray(image) for image in shown]))
    return (texts[1:] + texts[:1] if shuffle_videos else texts), frames


def train_clip(
    world: Path, seed: int, shuffle_videos: bool, recipe: dict
) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """Trains a CLIP with its own loss. The pairs of a batch come from different videos.

    Args:
        world, shuffle_videos: As in [`read_pairs`].
        seed: Seed of weights and batches.
        recipe: Settings, as in `CLIP_RECIPE`.
    """
    rng, size, steps = np.random.default_rng(seed), recipe["per_device_train_batch_size"], recipe["max_steps"]
    torch.manual_seed(seed)
    texts, frames = read_pairs(world, shuffle_videos)
    tokenizer = train_clip_tokenizer((text for several in texts for text in several), recipe["vocab_size"])
    model = build_clip(tokenizer, recipe["max_length"])
    pretrain_image_tower(model.vision_model, seed, recipe["num_pretrain_scenes"], recipe["pretrain_steps"])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), recipe["learning_rate"], weight_decay=recipe["weight_decay"])
    schedule = get_linear_schedule_with_warmup(optimizer, recipe["warmup_steps"], steps)
    losses = []
    with tqdm(range(steps), desc="training the CLIP", unit="step") as progress:
        for _ in progress:
            videos = rng.choice(len(texts), size, replace=False)
            chosen = [str(rng.choice(texts[i])) for i in videos]
            pictures = np.stack([rng.choice(frames[i]) for i in videos])
            options = {"padding": True, "truncation": True, "max_length": recipe["max_length"], "return_tensors": "pt"}
            batch = {**tokenizer(chosen, **options), "pixel_values": centered_pixels(pictures)}
            loss = model(**batch, return_loss=True).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            progress.set_postfix(loss=f"{np.mean(losses[-50:]):.2f}", refresh=False)
    return model.eval(), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder of the grounded world")
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder for the CLIP and its tokenizer")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and batches")
    parser.add_argument("--shuffle_videos", action="store_true", help="control: captions of other videos")
    args = parser.parse_args()
    if args.output_dir.exists():
        parser.error(f"{args.output_dir} exists: choose another --output_dir, or remove it to train again")
    model, tokenizer = train_clip(args.world, args.seed, args.shuffle_videos, CLIP_RECIPE)
    settings = {**CLIP_RECIPE, "architecture": "clip", "shuffle_videos": args.shuffle_videos, "seed": args.seed}
    run = {"command": command(), "finished": True, "versions": versions(), "settings": settings}
    with atomic_dir(args.output_dir) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        atomic_write(part / RUN_FILE, json.dumps(run, indent=2) + "\n")
    print(f"The CLIP is in {args.output_dir}.")


if __name__ == "__main__":
    main()
