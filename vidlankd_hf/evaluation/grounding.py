"""Grounding: which video clips are nearest to the tokens of a sentence, for the teacher and for a student.

Token states h_i and clips v are compared as unit vectors in one space, as in the teacher's contrastive loss:

    teacher:  s(i, v) = unit(P h_i) . v
    student:  s'(i, v) = unit(P |h| g(z_i)) . v

P is the teacher's text projection, if it has one. z_i are the student's states, and g is its distillation head, which
predicts the direction of the teacher's state. |h| is the mean length of the teacher's states in this sentence: no
objective teaches lengths, and only a projection depends on them.

Shapes: L ordinary tokens, K clips, J width of the joint space, T steps of one clip.
"""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data.collators import VideoTextCollator
from ..models.attention import longest_sequence
from ..models.heads import unit_states
from ..models.student import DistillationStudent
from ..models.teacher import VidLanKDTeacher
from ..training.sampler import EpochDataset

# Objectives that pull each output of the head toward the teacher's state of the same token. NST compares which tokens
# the neurons respond to, regardless of the axes; soft labels and vokens compare no states.
ALIGNED = ("infonce", "crd", "regression")
# The heat map shows the first of the 50 nearest clips that has at least 4 steps.
HEAT_CANDIDATES, HEAT_STEPS = 50, 4


@dataclass
class Scores:
    """One model's scores of a sentence.

    Args:
        similarity: `[L, k]` cosines of each token with its nearest clips, largest first.
        nearest: `[L, k]` indices of these clips.
        mean: `[L]` mean of the token's cosines with all K clips.
        std: `[L]` standard deviation of these cosines.
        heat: `[L, T]` cosines with the steps of one clip.
    """

    similarity: Tensor
    nearest: Tensor
    mean: Tensor
    std: Tensor
    heat: Tensor

    def deviations(self, similarity: Tensor) -> Tensor:
        """Returns `[L, n]` cosines in standard deviations above the token's mean over all clips."""
        return (similarity - self.mean[:, None]) / self.std[:, None].clamp(min=1e-6)


@dataclass
class Grounding:
    """The scores of both models for a sentence.

    Args:
        sentence: The sentence.
        tokens: Its L ordinary tokens, spelled as in the sentence.
        spans: First and last character position of each token.
        num_clips: Number of clips, K.
        teacher: The teacher's scores.
        student: The student's scores, or `None`.
        objective: Objective that gave the student's scores.
        has_head: Whether its distillation head did, and not the student's own states.
        without_student: Why there are no scores of the student, as a sentence.
        heat_clip: Index of the clip in the heat maps.
        heat_clip_reason: Why this clip was chosen, in words.
        times: `[T]` times of its steps in seconds.
    """

    sentence: str
    tokens: list[str]
    spans: list[tuple[int, int]]
    num_clips: int
    teacher: Scores
    student: Scores | None
    objective: str | None
    has_head: bool
    without_student: str | None
    heat_clip: int
    heat_clip_reason: str
    times: Tensor


@torch.inference_mode()
def encode_clips(teacher: VidLanKDTeacher, tokenizer, clips: Dataset, max_video_length=384, batch_size=64) -> Tensor:
    """Encodes the clips of [`load_video_text`] once, for [`ground`] on several sentences.

    Args:
        teacher: Teacher that was trained with the contrastive loss.
        tokenizer: The teacher's tokenizer.
        clips: The K clips.
        max_video_length: Maximum number of steps of a clip.
        batch_size: Number of clips per batch.

    Returns:
        Unit vectors `[K, J]` on the CPU.

    Raises:
        ValueError: The teacher has no video encoder.
    """
    check_video_encoder(teacher)
    steps = min(max_video_length, teacher.config.video_config.max_position_embeddings)
    collator = VideoTextCollator(tokenizer, max_video_length=steps, max_length=2**30, check_negatives=False)
    teacher.eval()
    vectors = []
    for batch in tqdm(DataLoader(EpochDataset(clips), batch_size, collate_fn=collator), desc="clips", leave=False):
        features, mask = batch["video_features"].to(teacher.device), batch["video_mask"].to(teacher.device)
        vectors.append(teacher.encode_video(features, mask).cpu())
    return torch.cat(vectors)


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
    """Finds the clips nearest to each token of a sentence, and compares each token with every step of one clip.

    The models are put into eval mode and read the complete sentence, unmasked, between [CLS] and [SEP]. Every token is
    compared with every clip.

    Args:
        sentence: Sentence of at least one token.
        teacher: Teacher that was trained with the contrastive loss.
        tokenizer: The teacher's tokenizer, a fast one.
        clips: The K clips from [`load_video_text`].
        bank: Vectors of the clips from [`encode_clips`]. Default: encode them.
        student: Student with its distillation heads. If no head fits, the result says why instead of scoring it.
        objective: Objective whose head is used. Default: the first of `ALIGNED` that the student was trained with.
        num_nearest: Number of nearest clips, k.
        heat_clip: Index of the clip in the heat map. Default: of the 50 clips with the highest mean cosine over the
            teacher's tokens, the first with at least 4 steps, otherwise the longest.
        window: Number of steps that the video encoder sees for each step of the heat map, centered on that step.
        batch_size: Number of clips, or steps, per batch.

    Raises:
        ValueError: The teacher has no video encoder, the sentence has no tokens or too many, the tokenizer is not a
            fast one, a number does not fit the clips, or the student or its head does not fit the teacher.
    """
    check_video_encoder(teacher)
    for name, value, most in (("num_nearest", num_nearest, len(clips)), ("window", window, 2**30)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} is {value}: give a number from 1 to {most}")
    if heat_clip is not None and not 0 <= heat_clip < len(clips):
        raise ValueError(f"heat_clip is {heat_clip}: give the index of a clip, from 0 to {len(clips) - 1}")
    bank = encode_clips(teacher, tokenizer, clips, batch_size=batch_size) if bank is None else bank
    if len(bank) != len(clips):
        raise ValueError(f"the bank has {len(bank)} vectors, but there are {len(clips)} clips: encode these clips")
    bank = bank.to(teacher.device)
    ids, tokens, spans = _tokens(sentence, tokenizer)
    for name, model in (("teacher", teacher.text_model), ("student", student)):
        longest = None if model is None else longest_sequence(model)
        if longest is not None and ids.shape[1] > longest:
            raise ValueError(
                f"the sentence has {ids.shape[1] - 2} tokens, but the {name} reads at most {longest - 2}: shorten the "
                "sentence"
            )

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

    chosen_because = "the requested clip"
    if heat_clip is None:
        heat_clip, rank = _clip_for_heat(vectors["teacher"].mean(0) @ bank.T, clips)
        chosen_because = f"number {rank} of the clips nearest to the sentence for the teacher"
    steps, times = _step_vectors(teacher, clips[heat_clip], window, batch_size)
    scores = {}
    for model, queries in vectors.items():
        parts = (*nearest_clips(queries, bank, num_nearest), queries @ steps.T)
        scores[model] = Scores(*(part.cpu() for part in parts))
    return Grounding(
        sentence=sentence,
        tokens=tokens,
        spans=spans,
        num_clips=len(clips),
        teacher=scores["teacher"],
        student=scores.get("student"),
        objective=name,
        has_head=name is not None and name in student.distillation_heads,
        without_student=reason,
        heat_clip=heat_clip,
        heat_clip_reason=chosen_because,
        times=times,
    )


def nearest_clips(queries: Tensor, bank: Tensor, k: int, rows: int = 8192) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Finds the rows of `bank` with the largest inner product with each query; among equal products, the first row.

    Args:
        queries: `[N, J]`.
        bank: `[K, J]`.
        k: Number of rows to find for each query.
        rows: Rows of the bank per product, so that memory does not grow with K.

    Returns:
        The products `[N, k]`, largest first, their row indices `[N, k]`, and the mean and standard deviation `[N]`
        over all rows.
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
    """Chooses the objective whose head maps the student's states into the teacher's space.

    Args:
        student: Student with its objectives.
        teacher: The teacher that it was distilled from.
        objective: The objective to use. Default: the first of `ALIGNED` that the student has.

    Returns:
        Its name and `None`, or `None` and the reason, as a sentence, why there is none.

    Raises:
        ValueError: The student does not have `objective`, it does not align states, or the student does not fit the
            teacher.
    """
    held = list(student.objectives)
    if objective is not None:
        needs = student.objectives[objective].needs if objective in held else ()
        if "hidden" not in needs or objective == "nst":
            raise ValueError(
                f"objective {objective!r} has no head in the teacher's space; the student has {held or 'none'}: "
                f"choose {', '.join(ALIGNED)}, or your own objective that compares states of the same token"
            )
    found = objective or next((name for name in ALIGNED if name in held), None)
    if found is None:
        alone = f"was trained with {', '.join(held)} only, which does not map its states into the teacher's space"
        return None, (
            f"This checkpoint {alone if held else 'has no distillation head'}, so its states cannot be compared with "
            f"clips. Give the folder of a student that was distilled with one of {', '.join(ALIGNED)}; it contains "
            "distillation/."
        )
    width = student.config.distillation["teacher_hidden_size"]
    for what, of_student, of_teacher in (
        ("head predicts states of width", width, teacher.config.hidden_size),
        ("vocabulary has a size of", student.config.vocab_size, teacher.config.vocab_size),
    ):
        if of_student != of_teacher:
            raise ValueError(
                f"the student's {what} {of_student}, but this teacher's is {of_teacher}: give the teacher that the "
                "student was distilled from"
            )
    return found, None


def _clip_for_heat(similarity: Tensor, clips: Dataset) -> tuple[int, int]:
    """Returns a clip that is near to the sentence and has enough steps, and its rank, from 1."""
    nearest = similarity.topk(min(HEAT_CANDIDATES, len(clips))).indices.tolist()
    steps: list[int] = []
    for index in nearest:
        steps.append(len(clips[index]["video_features"]))
        if steps[-1] >= HEAT_STEPS:
            break
    place = steps.index(max(steps))
    return nearest[place], place + 1


def check_video_encoder(teacher) -> None:
    """Raises a `ValueError` if the teacher cannot compare tokens with clips."""
    if not isinstance(teacher, VidLanKDTeacher) or teacher.video_encoder is None:
        raise ValueError(
            f"this {type(teacher).__name__} has no video encoder, so it cannot compare tokens with clips: give a "
            "VidLanKDTeacher that was trained with losses='contrast+mlm' or 'contrast'"
        )


def _tokens(sentence: str, tokenizer) -> tuple[Tensor, list[str], list[tuple[int, int]]]:
    """Returns ids `[1, L + 2]`, and the text and character span of each ordinary token."""
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} has no character offsets: use a fast tokenizer")
    encoded = tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    if not encoded["input_ids"]:
        raise ValueError(f"the sentence {sentence[:200]!r} has no token in the vocabulary: give at least one word")
    spans = []
    for begin, end in encoded["offset_mapping"]:  # byte-level tokens include the space before them
        begin += len(sentence[begin:end]) - len(sentence[begin:end].lstrip())
        spans.append((begin, max(begin, end)))
    ids = torch.tensor([[tokenizer.cls_token_id, *encoded["input_ids"], tokenizer.sep_token_id]])
    return ids, [sentence[begin:end] for begin, end in spans], spans


def _step_vectors(teacher: VidLanKDTeacher, row: dict, window: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Returns unit vectors `[T, J]` of the window around each step, and the times `[T]` of the steps in seconds."""
    features = torch.as_tensor(np.asarray(row["video_features"], np.float32))
    count, size = len(features), min(window, len(features), teacher.config.video_config.max_position_embeddings)
    # At both ends the window stays inside the clip.
    first = (torch.arange(count) - size // 2).clamp(0, count - size)
    seen = features[first[:, None] + torch.arange(size)]
    vectors = [teacher.encode_video(part.to(teacher.device)) for part in seen.split(batch_size)]
    times = row.get("times")
    times = np.arange(count) if times is None else times
    return torch.cat(vectors), torch.as_tensor(np.asarray(times, np.float32))
