"""Tiny frozen vision backbones for the grounded world, pre-trained on rendered scenes without nouns or captions.

They replace the paper's ImageNet ResNet and Kinetics video model, which cannot be downloaded offline. Both learn where
each colour and shape is in the picture; the VideoMAE also learns where each motion is. Neither sees any text.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, PreTrainedModel, ResNetConfig, ResNetModel, VideoMAEConfig, VideoMAEModel

from ...extraction.backbones import to_pixel_values
from ...extraction.streams import CLIP_FRAME_RATE, CLIP_LENGTH
from .render import ATTRIBUTES, FPS, PICTURE_SIZE, Look, render_scene

# Labels are given for 4 x 4 cells: with labels for complete pictures, shape and motion are learned more slowly.
GRID = 4
VISIBLE_SHARE = 0.2  # share of a cell's pixels (and of the clip's time) that an object must fill to be its label
REPEAT = round(CLIP_FRAME_RATE / FPS)  # number of times that extraction reads each rendered frame
CLIP_PICTURE_SIZE = 32
BATCH_SIZE = 32
LEARNING_RATES = {"frame": 7e-3, "clip": 2e-3}


def pretrain_backbones(output_dir: str | Path, seed: int, num_scenes: int, frame_steps: int, clip_steps: int) -> None:
    """Pre-trains the ResNet and the VideoMAE and saves them, with their image processors, to `frame` and `clip`.

    Args:
        output_dir: Output folder; it is created.
        seed: Seed of scenes, initial weights and order.
        num_scenes: Number of rendered clips of 2/3 s, with one to three objects each.
        frame_steps: Training steps of the ResNet, 32 pictures each.
        clip_steps: Training steps of the VideoMAE, 32 clips each.
    """
    output_dir = Path(output_dir)
    clips, labels = render_labelled_clips(num_scenes, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        frame, clip = _frame_backbone(output_dir / "frame", seed), _clip_backbone(output_dir / "clip")

    def train(backbone: tuple[PreTrainedModel, torch.nn.Module, Callable], steps: int, name: str, line: int) -> None:
        torch.set_num_threads(1)  # applies to the calling thread
        what = f"pre-training the {name} backbone"
        batches = tqdm(_batches(clips, labels, steps, seed), desc=what, total=steps, unit="step", position=line)
        _train(*backbone, batches, LEARNING_RATES[name])

    # In parallel threads: models this small do not gain from torch's own threads.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, (frame, clip), (frame_steps, clip_steps), ("frame", "clip"), (0, 1)))
    for backbone, name in ((frame, "frame"), (clip, "clip")):
        backbone[0].eval().save_pretrained(output_dir / name)


def pretrain_image_tower(model: PreTrainedModel, seed: int, num_scenes: int, steps: int) -> None:
    """Pre-trains the image tower of a CLIP: it learns where each colour and shape is in a picture, and which are.

    Args:
        model: Tower with patches of at most 16 x 16 pixels.
        seed: Seed of scenes and order.
        num_scenes: As in [`pretrain_backbones`].
        steps: Training steps, 32 pictures each.
    """
    _start_from_cosines(model.embeddings.patch_embedding.weight.unsqueeze(2))
    head = torch.nn.Linear(model.config.hidden_size, sum(len(ATTRIBUTES[name]) for name in ("colour", "shape")))
    side = PICTURE_SIZE // model.config.patch_size // GRID
    rng = np.random.default_rng((seed, 10))

    def loss(clips: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        """Loss on one picture per clip: of the cells, whose states are means over patches, and of the class token.

        The last layer reads the cells' states of the layer before it into the class token.
        """
        drawn = np.arange(len(clips)), rng.integers(0, clips.shape[1], len(clips))
        output = model(pixel_values=centered_pixels(clips[drawn]), output_hidden_states=True)
        patches = output.hidden_states[-2][:, 1:].unflatten(1, (GRID, side, GRID, side))
        visible = labels[drawn] > VISIBLE_SHARE
        of_cells = _loss_per_attribute(head(patches.mean((2, 4))), visible)
        return of_cells + _loss_per_attribute(head(output.pooler_output), visible.any((1, 2)))

    batches = _batches(*render_labelled_clips(num_scenes, seed), steps, seed)
    progress = tqdm(batches, desc="pre-training the image tower", total=steps, unit="step")
    _train(model, head, loss, progress, LEARNING_RATES["clip"])


def centered_pixels(pictures: np.ndarray) -> torch.Tensor:
    """Pictures `[B, 64, 64, 3]` uint8 as `[B, 3, 64, 64]` from -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1


def render_labelled_clips(num_scenes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders clips of random objects and labels each cell with the attributes that are visible in it.

    Args:
        num_scenes: Number of clips N.
        seed: Seed of the scenes.

    Returns:
        Clips `[N, T, 64, 64, 3]` uint8 with T frames at `FPS`, and labels `[N, T, 4, 4, 14]` float16: the share of
        the cell's pixels with each colour, shape and motion.
    """

    def render(index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((seed, 6, index))
        looks = [
            Look(**{attribute: str(rng.choice(values)) for attribute, values in ATTRIBUTES.items()})
            for _ in range(1 + index % 3)
        ]
        frames, visible = render_scene(looks, CLIP_LENGTH // REPEAT, rng)
        cell = PICTURE_SIZE // GRID
        share = visible.reshape(*visible.shape[:2], GRID, cell, GRID, cell).mean(axis=(3, 5))
        has = np.array([[getattr(look, a) == v for a, values in ATTRIBUTES.items() for v in values] for look in looks])
        return frames, np.einsum("ntij,na->tija", share, has.astype(np.float32)).astype(np.float16)

    with ThreadPoolExecutor() as pool:
        scenes = pool.map(render, range(num_scenes))
        rendered = list(tqdm(scenes, total=num_scenes, desc="rendering scenes to pre-train on", unit="scene"))
    clips, labels = zip(*rendered)
    return np.stack(clips), np.stack(labels)


def _frame_backbone(folder: Path, seed: int) -> tuple[PreTrainedModel, torch.nn.Module, Callable]:
    """Builds a ResNet, its pre-training head and the loss of a batch; saves its image processor."""
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
    model = ResNetModel(config)
    processor = _save_processor(folder, "ViTImageProcessor", PICTURE_SIZE)
    num_values = sum(len(ATTRIBUTES[name]) for name in ("colour", "shape"))
    head = torch.nn.Linear(config.hidden_sizes[-1], num_values)
    rng = np.random.default_rng((seed, 7))

    def loss(clips: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        """Loss on one picture per clip; the last feature map has 4 x 4 cells."""
        drawn = np.arange(len(clips)), rng.integers(0, clips.shape[1], len(clips))
        states = model(pixel_values=to_pixel_values(clips[drawn], processor)).last_hidden_state
        return _loss_per_attribute(head(states.permute(0, 2, 3, 1)), labels[drawn] > VISIBLE_SHARE)

    return model, head, loss


def _clip_backbone(folder: Path) -> tuple[PreTrainedModel, torch.nn.Module, Callable]:
    """Builds a VideoMAE, its pre-training head and the loss of a batch; saves its image processor."""
    config = VideoMAEConfig(
        image_size=CLIP_PICTURE_SIZE,
        patch_size=CLIP_PICTURE_SIZE // GRID,
        num_frames=CLIP_LENGTH,
        tubelet_size=CLIP_LENGTH,
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=768,
        initializer_range=0.05,
    )
    model = VideoMAEModel(config)
    _start_from_cosines(model.embeddings.patch_embeddings.projection.weight)
    processor = _save_processor(folder, "VideoMAEImageProcessor", CLIP_PICTURE_SIZE)
    head = torch.nn.Linear(config.hidden_size, sum(map(len, ATTRIBUTES.values())))

    def loss(clips: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        """Loss on clips; a token is one of 4 x 4 patches over the full length of the clip."""
        pixels = to_pixel_values(clips.reshape(-1, *clips.shape[2:]), processor)
        pixels = pixels.unflatten(0, clips.shape[:2]).repeat_interleave(REPEAT, dim=1)
        states = model(pixel_values=pixels).last_hidden_state
        share = labels.mean(axis=1, dtype=np.float32)
        return _loss_per_attribute(head(states.unflatten(1, (GRID, GRID))), share > VISIBLE_SHARE)

    return model, head, loss


def _batches(clips: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draws random batches, half of them mirrored and half reversed in time; neither changes the labels."""
    rng = np.random.default_rng((seed, 8))
    for _ in range(steps):
        drawn = rng.integers(0, len(clips), BATCH_SIZE)
        mirror, backwards = rng.choice([1, -1], 2)
        yield clips[drawn][:, ::backwards, :, ::mirror], labels[drawn][:, ::backwards, :, ::mirror]


def _loss_per_attribute(logits: torch.Tensor, targets: np.ndarray) -> torch.Tensor:
    """Binary cross-entropy of `[..., values]`; colour has a lower weight, since it is learned very fast."""
    targets = torch.from_numpy(np.ascontiguousarray(targets[..., : logits.shape[-1]])).float()
    weights, first, loss = {"colour": 0.25, "shape": 1.0, "motion": 1.0}, 0, torch.zeros(())
    for attribute, values in ATTRIBUTES.items():
        part = slice(first, first := first + len(values))
        if first <= logits.shape[-1]:
            loss = loss + weights[attribute] * binary_cross_entropy_with_logits(logits[..., part], targets[..., part])
    return loss


def _train(model: PreTrainedModel, head: torch.nn.Module, loss_of: Callable, batches: tqdm, rate: float) -> None:
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=batches.total, pct_start=0.15)
    model.train()
    for step, batch in enumerate(batches):
        loss = loss_of(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            batches.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def _start_from_cosines(weights: torch.Tensor) -> None:
    """Initializes a patch embedding with low-frequency cosines in time and space, of brightness and color contrasts.

    The weights are `[outputs, 3, T, height, width]`. Higher frequencies get larger weights, since they are weaker in
    pictures. With random weights the model does not learn motion for thousands of steps.
    """
    _, _, length, height, width = weights.shape
    frequencies = [(t, y, x) for t in range(7) for y in range(5) for x in range(5)]
    frequencies.sort(key=lambda frequency: sum(f * f for f in frequency))
    contrasts = torch.tensor([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    for i, weight in enumerate(weights):
        t, y, x = frequencies[i // len(contrasts)]
        wave = torch.einsum("t,y,x->tyx", _cosine(t, length), _cosine(y, height), _cosine(x, width))
        wave = torch.einsum("c,tyx->ctyx", contrasts[i % len(contrasts)], wave)
        weight.copy_(wave / wave.norm() * 0.25 * (1 + 2 * t + y + x))


def _cosine(frequency: int, length: int) -> torch.Tensor:
    return torch.cos(torch.pi * frequency * (torch.arange(length) + 0.5) / length)


def _save_processor(folder: Path, kind: str, size: int):
    """Writes `preprocessor_config.json` and loads it as extraction does."""
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    folder.mkdir(parents=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
