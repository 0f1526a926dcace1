"""Vokenization (baseline): every token of a corpus gets its nearest clip, its voken, which the student predicts.

A vokenizer is a teacher that compares tokens and clips in a joint space (`joint_size=64`). [`vokenize`] writes:

- `bank.safetensors` and `bank.json`: unit vectors `[K, J]` of the clips, and their ids;
- `vokens.npy`: `[blocks, block_tokens]`, the clip number of each token of each text block;
- `info.json`, written last: K, the sha256 of `vokens.npy`, and fingerprints of text, vocabulary and vokenizer.

Source: Tan and Bansal, EMNLP 2020 (arXiv 2010.06775).
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm.auto import tqdm

from ..data.sealed_json import sealed
from ..data.shared_tasks import SharedTasks, TasksRemoved
from ..data.streaming import VideoTextStream
from ..data.text_blocks import TextBlocks, read_vokens_info
from ..data.vocabulary import vocabulary_fingerprint
from ..evaluation.grounding import check_video_encoder, encode_clips
from ..models.teacher import VidLanKDTeacher
from ..reliability.same_run import model_fingerprint
from ..utils.io import atomic_file, atomic_write, one_responsible, sha256_of
from .folders import begin_folder

# An interrupted vokenization repeats at most one shard per process.
MOST_SHARD_BLOCKS, LEAST_SHARDS = 8192, 16


def vokenize(
    vokenizer: VidLanKDTeacher,
    tokenizer,
    blocks: TextBlocks,
    clips: Dataset | VideoTextStream,
    folder: str | Path,
    num_vokens: int = 50_000,
    seed: int = 0,
    max_video_length: int = 384,
    batch_size: int = 64,
) -> dict:
    """Assigns the nearest of `num_vokens` clips to every token of `blocks`.

    The vokenizer reads complete, unmasked blocks with [CLS] and [SEP]. Processes that call it with the same folder
    share the work, also on several machines; an interrupted run continues when it is called again.

    Args:
        vokenizer: Teacher trained with a contrastive loss.
        tokenizer: Tokenizer of the vokenizer and of `blocks`.
        blocks: All blocks of a folder from [`load_text_blocks`].
        clips: Clips from [`load_video_text`]; `num_vokens` of them are drawn.
        folder: Output folder; it is created.
        num_vokens: Number of vokens K; 50,000 in the paper.
        seed: Seed for drawing the clips.
        max_video_length: Maximum number of steps of a clip, as in the vokenizer's training.
        batch_size: Number of blocks, and of clips, per forward pass.

    Returns:
        The content of `info.json`: fingerprints, `used` (number of vokens that occur) and `largest_share` (share of
        the tokens that have the most frequent voken).

    Raises:
        ValueError: There are fewer clips than vokens, the teacher has no video encoder, the blocks have another
            tokenizer or are only a part of their folder, or the output folder was started with other settings.
    """
    folder, state = Path(folder), PartialState()
    check_video_encoder(vokenizer)
    if not 2 <= num_vokens <= len(clips):
        raise ValueError(f"num_vokens is {num_vokens}, but there are {len(clips)} clips: give 2 to {len(clips)}")
    if (blocks.start, blocks.stop) != (0, blocks.info["blocks"]):
        raise ValueError("these blocks are only a part of their folder: vokenize all blocks before splitting them")
    if vocabulary_fingerprint(tokenizer) != blocks.info["vocabulary"]:
        raise ValueError("the blocks were made with another tokenizer: make them with the vokenizer's tokenizer")
    vokenizer.eval().to(state.device)
    if isinstance(clips, VideoTextStream):
        clips = clips.draw(num_vokens, seed)
    else:
        clips = clips.select(np.sort(np.random.default_rng(seed).permutation(len(clips))[:num_vokens]))
    work = _Vokenization(folder, vokenizer, tokenizer, blocks, clips, max_video_length, batch_size)

    def help_in(_: Path) -> bool:
        tasks = SharedTasks(folder)
        if work.complete or not tasks.folder.is_dir():
            return False
        _begin(folder, vokenizer, blocks, clips, num_vokens)
        with suppress(TasksRemoved):
            work.run(tasks)
        return tasks.claimed > 0

    with one_responsible(folder, (folder / "info.json").exists, help_in) as responsible:
        if responsible:
            info = _begin(folder, vokenizer, blocks, clips, num_vokens)
            if not (folder / "info.json").exists():
                work.write(info)
    return read_vokens_info(folder)


@dataclass
class _Vokenization:
    """The arguments of [`vokenize`], and its tasks: the vectors of the clips, then a task for each shard of blocks."""

    folder: Path
    vokenizer: VidLanKDTeacher
    tokenizer: Any
    blocks: TextBlocks
    clips: Dataset
    max_video_length: int
    batch_size: int
    complete: bool = False  # whether this process has seen all tasks done

    def write(self, info: dict) -> None:
        """Runs all tasks that are not done, and joins the shards."""
        tasks = SharedTasks(self.folder)
        tasks.folder.mkdir(exist_ok=True)
        shards = [self.folder / f"{name}.npy" for name in self.run(tasks)]
        info |= _join(shards, self.folder / "vokens.npy", len(self.clips))
        info["sha256"] = sha256_of(self.folder / "vokens.npy")
        tasks.remove()
        for shard in shards:
            shard.unlink()
        atomic_write(self.folder / "info.json", json.dumps(sealed(info), indent=2) + "\n")

    def run(self, tasks: SharedTasks) -> list[str]:
        """Runs tasks until all are done; returns the names of the shards."""
        list(tasks.run([("bank", None)], self._encode_clips))
        bank = load_file(self.folder / "bank.safetensors")["clips"].to(PartialState().device)
        size = min(MOST_SHARD_BLOCKS, -(-len(self.blocks) // LEAST_SHARDS))
        shards = [(f"shard-{i:05d}", slice(i * size, (i + 1) * size)) for i in range(-(-len(self.blocks) // size))]
        names = [name for name, _, _ in tasks.run(shards, partial(self._vokenize_shard, bank))]
        self.complete = True
        return names

    def _encode_clips(self, tasks: Path, name: str, _: None) -> dict:
        vectors = encode_clips(self.vokenizer, self.tokenizer, self.clips, self.max_video_length, self.batch_size)
        atomic_write(self.folder / "bank.safetensors", save({"clips": vectors}))
        return {}

    def _vokenize_shard(self, bank: Tensor, tasks: Path, name: str, rows: slice) -> dict:
        ids = self.blocks.array[rows]
        vokens = _nearest_clips(self.vokenizer, self.tokenizer, ids, bank, self.batch_size, description=name)
        with atomic_file(self.folder / f"{name}.npy") as file:
            np.save(file, vokens, allow_pickle=False)
        return {}


def nearest(queries: Tensor, bank: Tensor, rows: int = 8192) -> Tensor:
    """Finds the row of `bank` with the largest inner product for each query; the first one if several are equal.

    Args:
        queries: `[N, J]`.
        bank: `[K, J]`.
        rows: Rows of the bank per product, so that memory does not grow with K.

    Returns:
        Indices `[N]` of rows of `bank`.
    """
    best = queries.new_full((len(queries),), -torch.inf)
    index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for first in range(0, len(bank), rows):
        score, position = (queries @ bank[first : first + rows].T).max(dim=1)
        index = torch.where(score > best, position + first, index)
        best = torch.maximum(score, best)
    return index


def _begin(folder: Path, vokenizer: VidLanKDTeacher, blocks: TextBlocks, clips: Dataset, num_vokens: int) -> dict:
    """Starts or continues a folder with its `bank.json`; returns the entries of `info.json` that are known already."""
    rows = clips.with_format(None).select_columns(["id", "video", "start", "end"])
    bank = json.dumps(list(rows), indent=0) + "\n"
    info = {
        "num_vokens": num_vokens,
        "text": {name: blocks.info[name] for name in ("sha256", "vocabulary", "source", "blocks", "block_tokens")},
        "vokenizer": model_fingerprint(vokenizer),
        "clips": hashlib.sha256(bank.encode()).hexdigest(),
    }
    begin_folder(folder, info, "vokens")
    atomic_write(folder / "bank.json", bank)
    return info


@torch.inference_mode()
def _nearest_clips(
    vokenizer: VidLanKDTeacher, tokenizer, ids: np.ndarray, bank: Tensor, batch_size: int, description: str
) -> np.ndarray:
    """Vokens `[N, block_tokens]` of the blocks `ids [N, block_tokens]`."""
    vokens = np.empty(ids.shape, np.uint16 if len(bank) <= 2**16 else np.uint32)
    for start in tqdm(range(0, len(ids), batch_size), desc=description, leave=False):
        rows = torch.from_numpy(np.pad(ids[start : start + batch_size].astype(np.int64), ((0, 0), (1, 1))))
        rows[:, 0], rows[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
        tokens = vokenizer.unit_tokens(vokenizer.encode_text(rows.to(bank.device)))[:, 1:-1]
        vokens[start : start + batch_size] = nearest(tokens.flatten(0, 1), bank).view(tokens.shape[:2]).cpu().numpy()
    return vokens


def _join(shards: list[Path], path: Path, num_vokens: int) -> dict:
    """Joins the shards into one array file and returns `used` and `largest_share`."""
    arrays = [np.load(shard, mmap_mode="r", allow_pickle=False) for shard in shards]
    shape = (sum(map(len, arrays)), arrays[0].shape[1])
    counts = np.zeros(num_vokens, np.int64)
    header = {"descr": np.lib.format.dtype_to_descr(arrays[0].dtype), "fortran_order": False, "shape": shape}
    with atomic_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(array.tobytes())
            counts += np.bincount(array.reshape(-1), minlength=num_vokens)
    return {"used": int((counts > 0).sum()), "largest_share": float(counts.max() / counts.sum())}
