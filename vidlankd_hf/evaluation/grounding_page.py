"""What sentences point to, as one HTML page that needs no other file and as two pictures."""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from ..inspection.inspect import Clip, FrameReader, find_videos, middles_of, read_clip
from ..utils.io import atomic_write
from .grounding import Grounding, Scores

NUM_FRAMES = 3  # of a nearest clip
MOST_STEPS = 24  # of a heat map on the page; of more, as many evenly spaced
_WORD = re.compile(r"[^\W_]+")
TEMPLATE = Path(__file__).with_name("grounding_page.html")


def write_page(
    path: str | Path, title: str, groundings: Sequence[Grounding], clips: Dataset, videos: str | Path | None = None
) -> None:
    """Writes a page on which each token of the sentences is a button that shows its nearest clips.

    Frames, style and script are inside the file. Its content security policy lets nothing else run or load: captions
    and names are data, shown as text.

    Args:
        path: Of the page.
        title: Of the page.
        groundings: What `ground` found for each sentence, on these clips.
        clips: What the groundings index.
        videos: Folder of the video files; without it there are no frames.
    """
    pictures = ClipPictures(clips, videos)
    words = {_word(grounding, i) for grounding in groundings for i in range(len(grounding.tokens))} - {""}
    shares = _shares_of_captions(words, pictures.rows["text"])
    sentences = [_sentence(grounding, pictures, shares) for grounding in groundings]
    shown = sorted({clip for g in groundings for clip in _clips_of(g)})
    data = {
        "num_clips": groundings[0].num_clips,
        "names": {"teacher": "Teacher", "student": _student_name(groundings[0])},
        "first_token": _telling_token(groundings[0], pictures, shares),
        "sentences": sentences,
        "clips": {i: _clip_data(pictures, i) for i in shown},
    }
    # "<" ends no script element, and the two separators no line, once they are written as escapes.
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    content = content.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = TEMPLATE.read_text(encoding="utf-8")
    for tag, name in (("style", "__STYLE_HASH__"), ("script", "__SCRIPT_HASH__")):
        inline = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        page = page.replace(name, f"sha256-{digest}")
    before, after = page.split("__DATA__")
    atomic_write(path, before.replace("__TITLE__", html.escape(title)) + content + after)


class ClipPictures:
    """Frames of clips, each clip read once."""

    def __init__(self, clips: Dataset, videos: str | Path | None):
        self.rows, self.files = clips.with_format(None), {} if videos is None else find_videos(videos)
        self.problem = "the video files were not given" if videos is None else None
        self.read: dict[int, Clip] = {}
        self.reader = FrameReader()

    def __getitem__(self, index: int) -> Clip:
        """A clip with frames at the middles of `NUM_FRAMES` equal parts."""
        if index not in self.read:
            self.read[index] = self.at(index, middles_of(self.row(index), NUM_FRAMES))
        return self.read[index]

    def row(self, index: int) -> dict:
        return self.rows[index]

    def at(self, index: int, times: Sequence[float]) -> Clip:
        """A clip with frames at times in seconds."""
        row = self.row(index)
        clip = read_clip(row, self.files.get(row["video"]), times, self.reader)
        return clip._replace(problem=self.problem) if self.problem else clip


def _clips_of(grounding: Grounding) -> set[int]:
    models = [scores for scores in (grounding.teacher, grounding.student) if scores is not None]
    return {grounding.heat_clip, *(i for scores in models for i in scores.nearest.flatten().tolist())}


def _student_name(grounding: Grounding) -> str:
    return f"Student, by its {grounding.objective} head" if grounding.student is not None else "Student"


def _shares_of_captions(words: set[str], captions: Sequence[str]) -> dict[str, float]:
    """Of each word, the share of all captions that have it."""
    counts = dict.fromkeys(words, 0)
    for caption in captions:
        for word in words & _words_of(caption):
            counts[word] += 1
    return {word: count / len(captions) for word, count in counts.items()}


def _words_of(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _telling_token(grounding: Grounding, pictures: ClipPictures, shares: dict[str, float]) -> int:
    """The token whose word is in the captions of most of its nearest clips, beyond its share of all captions."""

    def excess(token: int) -> float:
        word, near = _word(grounding, token), grounding.teacher.nearest[token].tolist()
        return sum(word in _words_of(pictures.rows[i]["text"]) for i in near) / len(near) - shares.get(word, 1.0)

    return max(range(len(grounding.tokens)), key=excess)


def _sentence(grounding: Grounding, pictures: ClipPictures, shares: dict[str, float]) -> dict:
    steps = shown_steps(len(grounding.times))
    times = grounding.times[steps].tolist()
    frames = [_embedded(frame) for frame in pictures.at(grounding.heat_clip, times).frames]
    models = {name: getattr(grounding, name) for name in ("teacher", "student")}
    return {
        "sentence": grounding.sentence,
        "tokens": [
            {
                "text": text,
                "joined": i > 0 and grounding.spans[i - 1][1] == begin,
                "word": _word(grounding, i),
                "share": shares.get(_word(grounding, i)),
            }
            for i, (text, (begin, _)) in enumerate(zip(grounding.tokens, grounding.spans))
        ],
        "models": {name: scores and _scores_data(scores, steps) for name, scores in models.items()},
        "without_student": grounding.without_student,
        "heat": {"clip": grounding.heat_clip, "why": grounding.heat_clip_is, "times": times, "frames": frames},
    }


def shown_steps(count: int) -> list[int]:
    """The steps of a heat map that are drawn: all, or `MOST_STEPS` evenly spaced."""
    return torch.linspace(0, count - 1, min(count, MOST_STEPS)).round().long().tolist()


def _word(grounding: Grounding, token: int) -> str:
    """The whole word that a token is in, in lower case: letters and digits without a gap; "" for a mark."""
    begin, end = grounding.spans[token]
    inside = (m.group() for m in _WORD.finditer(grounding.sentence) if m.start() <= begin and end <= m.end())
    return next(inside, "").lower()


def _scores_data(scores: Scores, steps: list[int]) -> dict:
    heat = scores.heat[:, steps]

    def pairs(similarity, *before):
        columns = [*before, similarity, scores.deviations(similarity)]
        return [[[round(v, 4) for v in entry] for entry in zip(*rows)] for rows in zip(*(c.tolist() for c in columns))]

    return {
        "near": pairs(scores.similarity, scores.nearest),
        "mean": [round(value, 4) for value in scores.mean.tolist()],
        "std": [round(value, 4) for value in scores.std.tolist()],
        "heat": pairs(heat),
    }


def _clip_data(pictures: ClipPictures, index: int) -> dict:
    clip = pictures[index]
    return {
        "video": clip.video,
        "start": clip.start,
        "end": clip.end,
        "text": clip.text,
        "problem": clip.problem,
        "at": middles_of(pictures.row(index), NUM_FRAMES),
        "frames": [_embedded(frame) for frame in clip.frames],
        "aspect": round(clip.frames[0].width / clip.frames[0].height, 4) if clip.frames else 1,
    }


def _embedded(frame: Image.Image) -> str:
    content, frame = io.BytesIO(), frame.convert("RGB")
    frame.thumbnail((240, 180))
    frame.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


# ---- pictures ----

FRAME, GAP, LABEL = 84, 6, 150
INK, FAINT, PAPER, BLANK = (29, 31, 35), (98, 102, 110), (255, 255, 255), (236, 234, 229)
TONES = {"teacher": (164, 90, 0), "student": (28, 95, 168), "hot": (217, 72, 15), "cold": (59, 111, 181)}
MOST_DEVIATIONS = 3.5  # the darkest colour


def write_nearest_picture(path: str | Path, grounding: Grounding, clips: Dataset, videos: str | Path | None) -> None:
    """Writes a PNG: a row for each token, with the middle frames of the clips nearest to it and their cosines."""
    pictures = ClipPictures(clips, videos)
    models, width = _columns(grounding, grounding.teacher.nearest.shape[1] * (FRAME + GAP))
    row_height = FRAME + 24
    sheet, draw = _sheet(width, len(grounding.tokens) * row_height + 60)
    for x, (name, scores) in models.items():
        draw.text((x, 20), _title(grounding, name), TONES[name], ImageFont.load_default(16))
        if scores is None:
            continue
        for i, (clip_indices, values) in enumerate(zip(scores.nearest.tolist(), scores.similarity.tolist())):
            for place, (index, value) in enumerate(zip(clip_indices, values)):
                left, top = x + place * (FRAME + GAP), 50 + i * row_height
                frames = pictures[index].frames
                _draw_frame(sheet, draw, frames[len(frames) // 2] if frames else None, left, top)
                draw.text((left, top + FRAME + 2), f"{value:.2f}", FAINT, ImageFont.load_default(13))
    for i, token in enumerate(grounding.tokens):
        draw.text((16, 50 + i * row_height + FRAME // 2 - 10), token[:16], INK, ImageFont.load_default(17))
    _save(sheet, path)


def write_heat_picture(path: str | Path, grounding: Grounding, clips: Dataset, videos: str | Path | None) -> None:
    """Writes a PNG of the heat maps: the number is the cosine, the colour its standard deviations above the mean."""
    steps = shown_steps(len(grounding.times))
    times = grounding.times[steps].tolist()
    frames = ClipPictures(clips, videos).at(grounding.heat_clip, times).frames
    models, width = _columns(grounding, len(steps) * (FRAME + GAP))
    top, row_height = 50 + FRAME + 24, 28
    sheet, draw = _sheet(width, top + len(grounding.tokens) * row_height + 50)
    small = ImageFont.load_default(13)
    for x, (name, scores) in models.items():
        draw.text((x, 20), _title(grounding, name), TONES[name], ImageFont.load_default(16))
        if scores is None:
            continue
        heat = scores.heat[:, steps]
        for column, time in enumerate(times):
            left = x + column * (FRAME + GAP)
            _draw_frame(sheet, draw, frames[column] if frames else None, left, 50)
            draw.text((left, 50 + FRAME + 2), f"{time:.1f} s", FAINT, small)
        for i, (values, deviations) in enumerate(zip(heat.tolist(), scores.deviations(heat).tolist())):
            for column, (value, deviation) in enumerate(zip(values, deviations)):
                left, upper = x + column * (FRAME + GAP), top + i * row_height
                draw.rectangle((left, upper, left + FRAME - 1, upper + row_height - 3), _colour(deviation))
                draw.text((left + FRAME // 2, upper + row_height // 2 - 1), f"{value:.2f}", INK, small, anchor="mm")
    for i, token in enumerate(grounding.tokens):
        draw.text((16, top + i * row_height + 3), token[:16], INK, ImageFont.load_default(17))
    row = clips.with_format(None)[grounding.heat_clip]
    below = f"{row['video']}, {row['start']:.1f} to {row['end']:.1f} s. Number: cosine. Colour: standard deviations"
    below += f" above the token's mean over {grounding.num_clips:,} clips, full at {MOST_DEVIATIONS}."
    draw.text((16, sheet.height - 32), below, FAINT, small)
    _save(sheet, path)


def _columns(grounding: Grounding, width: int) -> tuple[dict[int, tuple[str, Scores | None]], int]:
    """x of each model's column, and the width of the sheet."""
    columns = {LABEL: ("teacher", grounding.teacher), LABEL + width + 30: ("student", grounding.student)}
    return columns, max(LABEL + 2 * width + 50, 780)


def _title(grounding: Grounding, name: str) -> str:
    if name == "teacher":
        return "Teacher"
    return _student_name(grounding) if grounding.student is not None else "Student: no head to compare by"


def _colour(deviation: float) -> tuple[int, ...]:
    strength = min(1.0, abs(deviation) / MOST_DEVIATIONS) * 0.85  # so that the number stays legible
    tone = TONES["hot" if deviation >= 0 else "cold"]
    return tuple(round(strength * t + (1 - strength) * p) for t, p in zip(tone, PAPER))


def _sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (width, height), PAPER)
    return sheet, ImageDraw.Draw(sheet)


def _draw_frame(sheet: Image.Image, draw: ImageDraw.ImageDraw, frame: Image.Image | None, x: int, y: int) -> None:
    draw.rectangle((x, y, x + FRAME - 1, y + FRAME - 1), BLANK)
    if frame is not None:
        scale = FRAME / max(frame.size)
        frame = frame.resize((max(1, round(frame.width * scale)), max(1, round(frame.height * scale))))
        sheet.paste(frame, (x + (FRAME - frame.width) // 2, y + (FRAME - frame.height) // 2))


def _save(sheet: Image.Image, path: str | Path) -> None:
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    atomic_write(path, content.getvalue())
