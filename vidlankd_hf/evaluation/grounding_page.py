"""Writes groundings as one self-contained HTML page, or as PNG pictures."""

import base64
import hashlib
import html
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from ..inspection.inspect import Clip, FrameReader, find_videos, read_clip, segment_midpoints
from ..utils.io import atomic_write
from ..utils.messages import number_of
from .grounding import Grounding, Scores

NUM_FRAMES = 3  # per nearest clip
MOST_STEPS = 24  # shown in a heat map; longer clips are subsampled evenly
_WORD = re.compile(r"[^\W_]+")
TEMPLATE = Path(__file__).with_name("grounding_page.html")


def write_page(
    path: str | Path, title: str, groundings: Sequence[Grounding], clips: Dataset, videos: str | Path | None = None
) -> None:
    """Writes a page on which each token of the sentences is a button that shows its nearest clips.

    Frames, style and script are inside the file. Its content security policy lets nothing else run or load, and
    captions and names are shown as plain text.

    Args:
        path: Path of the page.
        title: Title of the page.
        groundings: Results of `ground` on these clips, one per sentence.
        clips: The clips.
        videos: Folder of the video files. Default: show no frames.
    """
    pictures = ClipPictures(clips, videos)
    words = {_word(grounding, i) for grounding in groundings for i in range(len(grounding.tokens))} - {""}
    shares = _shares_of_captions(words, pictures.rows["text"])
    shown = sorted({clip for grounding in groundings for clip in _clips_of(grounding)})
    data = {
        "num_clips": groundings[0].num_clips,
        "names": {"teacher": "Teacher", "student": _student_name(groundings[0])},
        "first_token": _telling_token(groundings[0], pictures, shares),
        "sentences": [_sentence(grounding, pictures, shares) for grounding in groundings],
        "clips": {i: _clip_data(pictures, i) for i in shown},
    }
    # As escapes, "<" cannot end the script element, and the two Unicode line separators cannot end a line.
    content = json.dumps(data, ensure_ascii=False)
    for character in "<\u2028\u2029":
        content = content.replace(character, f"\\u{ord(character):04x}")
    page = TEMPLATE.read_text(encoding="utf-8")
    for tag, name in (("style", "__STYLE_HASH__"), ("script", "__SCRIPT_HASH__")):
        inline = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        page = page.replace(name, f"sha256-{digest}")
    before, after = page.split("__DATA__")
    atomic_write(path, before.replace("__TITLE__", html.escape(title)) + content + after)


class ClipPictures:
    """Frames of clips. Each clip is read once."""

    def __init__(self, clips: Dataset, videos: str | Path | None):
        self.rows, self.files = clips.with_format(None), {} if videos is None else find_videos(videos)
        self.problem = "the video files were not given" if videos is None else None
        self.read: dict[int, Clip] = {}
        self.reader = FrameReader()

    def __getitem__(self, index: int) -> Clip:
        """Returns a clip with frames at the middles of `NUM_FRAMES` equal parts."""
        if index not in self.read:
            self.read[index] = self.at(index, segment_midpoints(self.rows[index], NUM_FRAMES))
        return self.read[index]

    def at(self, index: int, times: Sequence[float]) -> Clip:
        """Returns a clip with frames at the given times in seconds."""
        row = self.rows[index]
        clip = read_clip(row, self.files.get(row["video"]), times, self.reader)
        return clip._replace(problem=self.problem) if self.problem else clip


def _clips_of(grounding: Grounding) -> set[int]:
    models = [scores for scores in (grounding.teacher, grounding.student) if scores is not None]
    return {grounding.heat_clip, *(i for scores in models for i in scores.nearest.flatten().tolist())}


def _student_name(grounding: Grounding) -> str:
    head = "head" if grounding.has_head else "without head"
    return "Student" if grounding.student is None else f"Student ({grounding.objective} {head})"


def _shares_of_captions(words: set[str], captions: Sequence[str]) -> dict[str, float]:
    """Returns the share of captions that contain each word."""
    counts = Counter(word for caption in captions for word in words & _words_of(caption))
    return {word: counts[word] / len(captions) for word in words}


def _words_of(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _telling_token(grounding: Grounding, pictures: ClipPictures, shares: dict[str, float]) -> int:
    """Returns the token whose word is most overrepresented in the captions of its nearest clips."""

    def excess(token: int) -> float:
        word, near = _word(grounding, token), grounding.teacher.nearest[token].tolist()
        return sum(word in _words_of(pictures.rows[i]["text"]) for i in near) / len(near) - shares.get(word, 1.0)

    return max(range(len(grounding.tokens)), key=excess)


def _sentence(grounding: Grounding, pictures: ClipPictures, shares: dict[str, float]) -> dict:
    steps = shown_steps(len(grounding.times))
    times = grounding.times[steps].tolist()
    frames = [_embedded(frame) for frame in pictures.at(grounding.heat_clip, times).frames]
    models = {name: getattr(grounding, name) for name in ("teacher", "student")}
    tokens = []
    for i, (text, (begin, _)) in enumerate(zip(grounding.tokens, grounding.spans)):
        joined, word = i > 0 and grounding.spans[i - 1][1] == begin, _word(grounding, i)
        tokens.append({"text": text, "joined": joined, "word": word, "share": shares.get(word)})
    return {
        "sentence": grounding.sentence,
        "tokens": tokens,
        "models": {name: scores and _scores_data(scores, steps) for name, scores in models.items()},
        "without_student": grounding.without_student,
        "heat": {"clip": grounding.heat_clip, "why": grounding.heat_clip_reason, "times": times, "frames": frames},
    }


def shown_steps(count: int) -> list[int]:
    """Returns the steps of a heat map that are drawn: all, or `MOST_STEPS` evenly spaced ones."""
    return torch.linspace(0, count - 1, min(count, MOST_STEPS)).round().long().tolist()


def _word(grounding: Grounding, token: int) -> str:
    """Returns the lower-case word that contains a token: letters and digits without a gap, "" for punctuation."""
    begin, end = grounding.spans[token]
    inside = (m.group() for m in _WORD.finditer(grounding.sentence) if m.start() <= begin and end <= m.end())
    return next(inside, "").lower()


def _scores_data(scores: Scores, steps: list[int]) -> dict:
    heat = scores.heat[:, steps]
    return {
        "near": _entries(scores.nearest, scores.similarity, scores.deviations(scores.similarity)),
        "mean": [round(value, 4) for value in scores.mean.tolist()],
        "std": [round(value, 4) for value in scores.std.tolist()],
        "heat": _entries(heat, scores.deviations(heat)),
    }


def _entries(*tables: torch.Tensor) -> list[list[list[float]]]:
    """Zips tables `[L, n]` into `[L, n, number of tables]`, rounded."""
    rows = zip(*(table.tolist() for table in tables))
    return [[[round(value, 4) for value in entry] for entry in zip(*row)] for row in rows]


def _clip_data(pictures: ClipPictures, index: int) -> dict:
    clip = pictures[index]
    return {
        **{name: getattr(clip, name) for name in ("video", "start", "end", "text", "problem")},
        "at": segment_midpoints(pictures.rows[index], NUM_FRAMES),
        "frames": [_embedded(frame) for frame in clip.frames],
        "aspect": round(clip.frames[0].width / clip.frames[0].height, 4) if clip.frames else 1,
    }


def _embedded(frame: Image.Image) -> str:
    content, frame = io.BytesIO(), frame.convert("RGB")
    frame.thumbnail((240, 180))
    frame.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


# ---- pictures ----

FRAME, CELL, LABEL, TOP = 84, 90, 150, 50  # pixels: a frame, a frame with its gap, the tokens' column, the titles' row
INK, FAINT, PAPER, BLANK = (29, 31, 35), (98, 102, 110), (255, 255, 255), (236, 234, 229)
TEACHER, STUDENT, HOT, COLD = (164, 90, 0), (28, 95, 168), (217, 72, 15), (59, 111, 181)
MOST_DEVIATIONS = 3.5  # the darkest color


def write_nearest_picture(path: str | Path, grounding: Grounding, clips: Dataset, videos: str | Path | None) -> None:
    """Writes a PNG with a row per token: the middle frames of its nearest clips, and their cosines."""
    pictures = ClipPictures(clips, videos)

    def draw_token(sheet: "_Sheet", scores: Scores, token: int, x: int, y: int) -> None:
        for index, value in zip(scores.nearest[token].tolist(), scores.similarity[token].tolist()):
            frames = pictures[index].frames
            sheet.frame(frames[len(frames) // 2] if frames else None, x, y)
            sheet.text(x, y + FRAME + 2, f"{value:.2f}")
            x += CELL

    _write_picture(path, grounding, grounding.teacher.nearest.shape[1], TOP, FRAME + 24, draw_token)


def write_heat_picture(path: str | Path, grounding: Grounding, clips: Dataset, videos: str | Path | None) -> None:
    """Writes a PNG of the heat maps: cosines as numbers, their standard deviations above the mean as colors."""
    steps, height = shown_steps(len(grounding.times)), 28
    times = grounding.times[steps].tolist()
    clip = ClipPictures(clips, videos).at(grounding.heat_clip, times)

    def draw_token(sheet: "_Sheet", scores: Scores, token: int, x: int, y: int) -> None:
        heat = scores.heat[:, steps]
        values = zip(times, heat[token].tolist(), scores.deviations(heat)[token].tolist())
        for step, (time, value, deviation) in enumerate(values):
            if token == 0:
                sheet.frame(clip.frames[step] if clip.frames else None, x, TOP)
                sheet.text(x, TOP + FRAME + 2, f"{time:.1f} s")
            sheet.draw.rectangle((x, y, x + FRAME - 1, y + height - 3), _color(deviation))
            sheet.text(x + FRAME // 2, y + height // 2 - 1, f"{value:.2f}", INK, anchor="mm")
            x += CELL

    footer = (
        f"{clip.video}, {clip.start:.1f} to {clip.end:.1f} s. Number: cosine. Color: standard deviations above the "
        f"token's mean over {number_of(grounding.num_clips, 'clip')}; darkest at {MOST_DEVIATIONS}."
    )
    _write_picture(path, grounding, len(steps), TOP + FRAME + 24, height, draw_token, footer)


def _write_picture(
    path: str | Path,
    grounding: Grounding,
    columns: int,
    top: int,
    row_height: int,
    draw_token: Callable[["_Sheet", Scores, int, int, int], None],
    footer: str = "",
) -> None:
    """Draws the rows of both models next to each other, with `draw_token(sheet, scores, token, x, y)` for each row."""
    width, height = max(LABEL + 2 * columns * CELL + 50, 780), top + len(grounding.tokens) * row_height
    sheet = _Sheet(width, height + (50 if footer else 10))
    student = _student_name(grounding) if grounding.student is not None else "Student: no head to compare with"
    models = ("Teacher", TEACHER, grounding.teacher), (student, STUDENT, grounding.student)
    for x, (title, color, scores) in zip((LABEL, LABEL + columns * CELL + 30), models):
        sheet.text(x, 20, title, color, size=16)
        for token in range(len(grounding.tokens) if scores is not None else 0):
            draw_token(sheet, scores, token, x, top + token * row_height)
    for i, token in enumerate(grounding.tokens):
        sheet.text(16, top + i * row_height + row_height // 2, token[:16], INK, size=17, anchor="lm")
    sheet.text(16, height + 18, footer)
    content = io.BytesIO()
    sheet.image.save(content, "PNG", optimize=True)
    atomic_write(path, content.getvalue())


class _Sheet:
    """An image to draw on."""

    def __init__(self, width: int, height: int):
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def text(self, x: int, y: int, text: str, color=FAINT, size: int = 13, anchor: str | None = None) -> None:
        self.draw.text((x, y), text, color, ImageFont.load_default(size), anchor=anchor)

    def frame(self, frame: Image.Image | None, x: int, y: int) -> None:
        """Draws a frame into a square, or leaves the square blank."""
        self.draw.rectangle((x, y, x + FRAME - 1, y + FRAME - 1), BLANK)
        if frame is not None:
            scale = FRAME / max(frame.size)
            frame = frame.resize((max(1, round(frame.width * scale)), max(1, round(frame.height * scale))))
            self.image.paste(frame, (x + (FRAME - frame.width) // 2, y + (FRAME - frame.height) // 2))


def _color(deviation: float) -> tuple[int, ...]:
    strength = min(1.0, abs(deviation) / MOST_DEVIATIONS) * 0.85  # so that the number stays legible
    tone = HOT if deviation >= 0 else COLD
    return tuple(round(strength * t + (1 - strength) * p) for t, p in zip(tone, PAPER))
