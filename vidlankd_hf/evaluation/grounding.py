"""Grounding: which clips the tokens of a sentence point to, by the teacher and by a student.

The teacher's contrast compares token states h_i and clips v as unit vectors of one space. So does this:

    similarity of token i with clip v:   s(i, v) = unit(P h_i) . v
    the same of a student:               s'(i, v) = unit(P |h| g(z_i)) . v

with P the teacher's text projection, if it has one, z_i the student's states, g its distillation head, which gives the
direction of the teacher's state, and |h| the mean length of the teacher's states in this sentence, which no objective
teaches and only a projection asks for.

Shapes: L ordinary tokens, K clips, J the width of the joint space, T steps of one clip.
"""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data.collators import VideoTextCollator
from ..models.heads import unit_states
from ..models.student import DistillationStudent
from ..models.teacher import VidLanKDTeacher
from ..training.sampler import EpochDataset

# Objectives that bring each state of the head to the teacher's state of the same token. NST compares which tokens the
# neurons respond to, whatever the axes; soft labels and vokens compare no states.
ALIGNED = ("infonce", "crd", "regression")
# Of so many clips nearest to a sentence, the heat map is of the first with so many steps.
HEAT_CANDIDATES, HEAT_STEPS = 50, 4


@dataclass
class Scores:
    """What one model says of a sentence.

    Args:
        similarity: `[L, k]` cosines of each token with its nearest clips, largest first.
        nearest: `[L, k]` indices of these clips.
        mean, std: `[L]` of the token's cosines with all K clips.
        heat: `[L, T]` cosines with the steps of one clip.
    """

    similarity: Tensor
    nearest: Tensor
    mean: Tensor
    std: Tensor
    heat: Tensor

    def deviations(self, similarity: Tensor) -> Tensor:
        """`[L, n]` cosines as standard deviations above the token's mean over all clips, `(s - mean) / std`."""
        return (similarity - self.mean[:, None]) / self.std[:, None].clamp(min=1e-6)


@dataclass
class Grounding:
    """The scores of a sentence.

    Args:
        sentence: As given.
        tokens: The L ordinary tokens as they stand in the sentence.
        spans: Characters of the sentence, from and to, of each token.
        num_clips: K.
        teacher: Its scores.
        student: Its scores, or `None`.
        objective: Whose distillation head the student's are through.
        without_student: Why there are no scores of the student, in words.
        heat_clip: Index of the clip of the heat maps.
        heat_clip_is: Why it is this one, in words.
        times: `[T]` seconds of its steps.
    """

    sentence: str
    tokens: list[str]
    spans: list[tuple[int, int]]
    num_clips: int
    teacher: Scores
    student: Scores | None
    objective: str | None
    without_student: str | None
    heat_clip: int
    heat_clip_is: str
    times: Tensor


def encode_clips(teacher: VidLanKDTeacher, tokenizer, clips: Dataset, max_video_length=384, batch_size=64) -> Tensor:
    """Unit vectors `[K, J]` of the clips of [`load_video_text`], for [`ground`] on several sentences.

    Raises:
        ValueError: A teacher without video encoder.
    """
    check_video_encoder(teacher)
    steps = min(max_video_length, teacher.config.video_config.max_position_embeddings)
    collator = VideoTextCollator(tokenizer, max_video_length=steps, max_length=2**30, check_negatives=False)
    return clip_vectors(teacher.eval(), clips, collator, batch_size)


@torch.inference_mode()
def ground(
    sentence: str,
    teacher: VidLanKDTeacher,
    tokenizer,
    clips: Dataset,
    bank: Tensor | None = None,
    student: DistillationStudent | None = None,
    objective: str | None = None,
    num_nearest: int = 6,
    heat_clip: int | None = None,
    window: int = 1,
    batch_size: int = 64,
) -> Grounding:
    """The nearest clips of each token of a sentence, and how near it is to each step of one clip.

    Both models, in eval mode from here on, read the sentence whole and unmasked, between [CLS] and [SEP]. Every token
    is compared with every clip.

    Args:
        sentence: Of at least one token.
        teacher: Trained by contrast.
        tokenizer: Its own; a fast one.
        clips: The K clips, as [`load_video_text`] gives them.
        bank: Their vectors, from [`encode_clips`]; made if not given.
        student: One with its distillation heads; its scores are left out, with the reason, if none fits.
        objective: Whose head is used; by default the first of `ALIGNED` that the student learned by.
        num_nearest: k.
        heat_clip: Index of the clip of the heat map. By default, of the 50 clips nearest to the sentence by the
            teacher's mean cosine over tokens, the first of 4 steps or more, or else the longest.
        window: How many steps, itself in the middle, the video encoder sees for each step of the heat map.
        batch_size: Clips, and steps, at a time.

    Raises:
        ValueError: A teacher without video encoder, a sentence without tokens or too long, a slow tokenizer, numbers
            that do not fit the clips, or a student or head that does not fit the teacher.
    """
    check_video_encoder(teacher)
    for name, value, most in (("num_nearest", num_nearest, len(clips)), ("window", window, 2**30)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} is {value}: give 1 to {most}")
    if heat_clip is not None and not 0 <= heat_clip < len(clips):
        raise ValueError(f"heat_clip is {heat_clip}: give the index of a clip, 0 to {len(clips) - 1}")
    bank = encode_clips(teacher, tokenizer, clips, batch_size=batch_size) if bank is None else bank
    if len(bank) != len(clips):
        raise ValueError(f"the bank has {len(bank)} vectors, but there are {len(clips)} clips: encode these clips")
    bank = bank.to(teacher.device)
    ids, tokens, spans = _tokens(sentence, tokenizer)
    for name, model in (("teacher", teacher.text_model), ("student", student)):
        _check_length(name, model, ids.shape[1])

    states = teacher.eval().encode_text(ids.to(teacher.device))
    vectors = {"teacher": teacher.unit_tokens(states)[0, 1:-1]}
    name, reason = None, "No student was given."
    if student is not None:
        name, reason = aligned_objective(student, teacher, objective)
    if name is not None:
        hidden = student.eval().base_model(ids.to(student.device)).last_hidden_state
        head = student.distillation_heads[name] if name in student.distillation_heads else unit_states
        directions = head(hidden).to(states)
        length = states[:, 1:-1].norm(dim=-1).mean()
        vectors["student"] = teacher.unit_tokens(directions * length)[0, 1:-1]

    chosen_because = "the clip that was asked for"
    if heat_clip is None:
        heat_clip, rank = _clip_for_heat(vectors["teacher"].mean(0) @ bank.T, clips)
        chosen_because = f"of the clips nearest to the sentence by the teacher, number {rank}"
    steps, times = _step_vectors(teacher, clips[heat_clip], window, batch_size)
    scores = {}
    for model, queries in vectors.items():
        similarity, nearest, mean, std = nearest_clips(queries, bank, num_nearest)
        parts = (similarity, nearest, mean, std, queries @ steps.T)
        scores[model] = Scores(*(part.cpu() for part in parts))
    return Grounding(
        sentence=sentence,
        tokens=tokens,
        spans=spans,
        num_clips=len(clips),
        teacher=scores["teacher"],
        student=scores.get("student"),
        objective=name,
        without_student=reason,
        heat_clip=heat_clip,
        heat_clip_is=chosen_because,
        times=times,
    )


def nearest_clips(queries: Tensor, bank: Tensor, k: int, rows: int = 8192) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The k rows of `bank [K, J]` with the largest inner product with each of `queries [N, J]`.

    The product is made `rows` of the bank at a time, so that memory does not grow with K. Of equals the first wins.

    Returns:
        The products `[N, k]`, largest first, their rows `[N, k]`, and mean and standard deviation `[N]` over all rows.
    """
    best = queries.new_empty((len(queries), 0))
    index = torch.empty((len(queries), 0), dtype=torch.long, device=queries.device)
    total, squares = torch.zeros((2, len(queries)), dtype=torch.float64, device=queries.device)
    for first in range(0, len(bank), rows):
        block = queries @ bank[first : first + rows].T
        total, squares = total + block.double().sum(1), squares + block.double().square().sum(1)
        places = torch.arange(first, first + block.shape[1], device=queries.device).expand(len(queries), -1)
        best, index = torch.cat([best, block], 1), torch.cat([index, places], 1)
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, index = best[:, :k], index.gather(1, order)[:, :k]
    mean = total / len(bank)
    std = (squares / len(bank) - mean.square()).clamp(min=0).sqrt()
    return best, index, mean.to(best), std.to(best)


def aligned_objective(
    student: DistillationStudent, teacher: VidLanKDTeacher, objective: str | None = None
) -> tuple[str | None, str | None]:
    """The objective through whose head a student's states are compared with the teacher's clips.

    Returns:
        Its name and `None`, or `None` and why there is none, in words.

    Raises:
        ValueError: An `objective` that the student has not or that does not align states, or another width.
    """
    held = list(student.objectives)
    if objective is not None:
        needs = student.objectives[objective].needs if objective in held else ()
        if "hidden" not in needs or objective == "nst":
            raise ValueError(
                f"objective {objective!r} gives no head in the teacher's space: the student has {held or 'none'}; "
                f"choose {', '.join(ALIGNED)} or your own that compares the states of the same token"
            )
    found = objective or next((name for name in ALIGNED if name in held), None)
    if found is None and held:
        return None, (
            f"This student learned by {', '.join(held)} alone, which does not bring its states into the teacher's "
            f"space, so they cannot be compared with clips. Distil with one of {', '.join(ALIGNED)} as well."
        )
    if found is None:
        return None, (
            "This checkpoint has no distillation head, so its states cannot be compared with clips. Give a folder "
            f"with distillation/ in it, of a student that was distilled with one of {', '.join(ALIGNED)}."
        )
    width = student.config.distillation["teacher_hidden_size"]
    if width != teacher.config.hidden_size:
        raise ValueError(
            f"the student's head gives states of width {width}, but this teacher's have {teacher.config.hidden_size}: "
            "give the teacher it was distilled from"
        )
    if student.config.vocab_size != teacher.config.vocab_size:
        raise ValueError(
            f"the student's vocabulary has {student.config.vocab_size} tokens, the teacher's "
            f"{teacher.config.vocab_size}: give the teacher it was distilled from"
        )
    return found, None


def _clip_for_heat(similarity: Tensor, clips: Dataset) -> tuple[int, int]:
    """A clip near to the sentence that has some length, and its rank, from 1."""
    nearest = similarity.topk(min(HEAT_CANDIDATES, len(clips))).indices.tolist()
    longest, most = 0, 0
    for place, index in enumerate(nearest):
        steps = len(clips[index]["video_features"])
        if steps > most:
            longest, most = place, steps
        if steps >= HEAT_STEPS:
            break
    return nearest[longest], longest + 1


def check_video_encoder(teacher) -> None:
    """Raises a `ValueError` if `teacher` cannot compare tokens with clips."""
    if not isinstance(teacher, VidLanKDTeacher) or teacher.video_encoder is None:
        raise ValueError(
            f"grounding compares tokens with clips, but this {type(teacher).__name__} has no video encoder: give a "
            "VidLanKDTeacher that was trained with losses='contrast+mlm' or 'contrast'"
        )


def _tokens(sentence: str, tokenizer) -> tuple[Tensor, list[str], list[tuple[int, int]]]:
    """Ids `[1, L + 2]`, and each ordinary token's text and place in the sentence."""
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer, which tells where a token stands")
    encoded = tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    if not encoded["input_ids"]:
        raise ValueError(f"the sentence {sentence[:200]!r} has no token in the vocabulary: give words")
    spans = []
    for begin, end in encoded["offset_mapping"]:  # byte-level tokens hold the space before them
        begin += len(sentence[begin:end]) - len(sentence[begin:end].lstrip())
        spans.append((begin, max(begin, end)))
    ids = torch.tensor([[tokenizer.cls_token_id, *encoded["input_ids"], tokenizer.sep_token_id]])
    return ids, [sentence[begin:end] for begin, end in spans], spans


def _check_length(name: str, model, length: int) -> None:
    config = getattr(model, "config", None)
    longest = getattr(config, "max_position_embeddings", length)
    if getattr(config, "model_type", "") == "roberta":  # its positions begin after the padding token's id
        longest -= config.pad_token_id + 1
    if length > longest:
        raise ValueError(
            f"the sentence has {length - 2} tokens, but the {name} reads at most {longest - 2}: give a shorter one"
        )


def _step_vectors(teacher: VidLanKDTeacher, row: dict, window: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Unit vectors `[T, J]` of what is seen around each step of a clip, and the steps' seconds `[T]`."""
    features = torch.as_tensor(np.asarray(row["video_features"], np.float32))
    count, size = len(features), min(window, len(features), teacher.config.video_config.max_position_embeddings)
    # At the ends the window stays inside the clip.
    first = (torch.arange(count) - size // 2).clamp(0, count - size)
    seen = features[first[:, None] + torch.arange(size)]
    vectors = [teacher.encode_video(part.to(teacher.device)) for part in seen.split(batch_size)]
    times = row.get("times")
    times = np.arange(count) if times is None else times
    return torch.cat(vectors), torch.as_tensor(np.asarray(times, np.float32))


@torch.inference_mode()
def clip_vectors(teacher: VidLanKDTeacher, clips: Dataset, collator: VideoTextCollator, batch_size: int) -> Tensor:
    """Unit vectors `[K, J]` of `clips` by the teacher's video encoder, on the CPU."""
    vectors = []
    for batch in tqdm(DataLoader(EpochDataset(clips), batch_size, collate_fn=collator), desc="clips", leave=False):
        features, mask = batch["video_features"].to(teacher.device), batch["video_mask"].to(teacher.device)
        vectors.append(teacher.encode_video(features, mask).cpu())
    return torch.cat(vectors)
