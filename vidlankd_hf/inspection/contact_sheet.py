"""Contact sheets of clips with their captions: a PNG image, and a self-contained HTML page with statistics."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..utils.io import atomic_write
from ..utils.messages import number_of
from .inspect import Clip

THUMBNAIL = (180, 135)
TEMPLATE = Path(__file__).with_name("contact_sheet.html")
GAP, MARGIN, COLUMNS, TEXT_LINES = 4, 28, 2, 4
INK, FAINT, PAPER, BLANK = "#1b1b1b", "#6a6a6a", "#ffffff", "#ececec"
AXES = {"left": 70, "right": 630, "top": 8, "bottom": 302}  # of the growth curves, in pixels
SERIES = ("#2563a8", "#c2571a")  # colors of the growth curves


def write_image(path: str | Path, clips: Sequence[Clip]) -> None:
    """Writes a PNG with the frames of each clip, its video and time, and the first lines of its text.

    Pillow's default font only has Latin characters; [`write_page`] shows every script.

    Args:
        path: The PNG file.
        clips: The clips, from [`sample_clips`].
    """
    label, body = ImageFont.load_default(14), ImageFont.load_default(16)
    num_frames = max(len(clip.frames) for clip in clips) or 1
    width = num_frames * THUMBNAIL[0] + (num_frames - 1) * GAP
    texts = [_wrap(clip.text, body, width, TEXT_LINES) for clip in clips]
    rows = [range(i, min(i + COLUMNS, len(clips))) for i in range(0, len(clips), COLUMNS)]
    heights = [THUMBNAIL[1] + 26 + 21 * max(len(texts[i]) for i in row) + MARGIN for row in rows]
    sheet = Image.new("RGB", (COLUMNS * (width + MARGIN) + MARGIN, sum(heights) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = MARGIN
    for row, height in zip(rows, heights):
        for column, i in enumerate(row):
            x = MARGIN + column * (width + MARGIN)
            for place in range(num_frames):
                frame = clips[i].frames[place] if place < len(clips[i].frames) else Image.new("RGB", THUMBNAIL, BLANK)
                picture = ImageOps.pad(frame, THUMBNAIL, color=BLANK)
                sheet.paste(picture, (x + place * (THUMBNAIL[0] + GAP), y))
            if clips[i].problem:
                draw.text((x + 8, y + 8), _wrap(clips[i].problem, label, width - 16, 1)[0], FAINT, label)
            draw.text((x, y + THUMBNAIL[1] + 5), _wrap(_heading(clips[i]), label, width, 1)[0], FAINT, label)
            for number, line in enumerate(texts[i]):
                draw.text((x, y + THUMBNAIL[1] + 26 + 21 * number), line, INK, body)
        y += height
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    atomic_write(path, content.getvalue())


def _heading(clip: Clip) -> str:
    return f"{clip.video}   {clip.start:.1f} to {clip.end:.1f} s"


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, max_lines: int) -> list[str]:
    """Wraps text into lines that fit. Text or words that do not fit are truncated with dots."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer[:400]) > width:
            lines.append(word)
            if len(lines) > max_lines:
                break
        else:
            lines[-1] = longer
    full = len(lines) > max_lines
    lines = [line[:400] for line in lines[:max_lines]]
    for i, line in enumerate(lines):
        cut = full and i == max_lines - 1
        while font.getlength(line + " ..." * cut) > width:
            line, cut = line[:-1], True
        lines[i] = line + " ..." * cut
    return lines


def write_page(
    path: str | Path, title: str, summary: dict, clips: Sequence[Clip], growth: dict[str, list[tuple[int, int]]]
) -> None:
    """Writes an HTML page with statistics, vocabulary growth and clips.

    The page needs no other files, escapes the text of captions and file names, and runs no scripts.

    Args:
        path: The HTML file.
        title: Title of the page.
        summary: Output of [`summarize`].
        clips: The clips, from [`sample_clips`].
        growth: Outputs of [`vocabulary_growth`] by the name of their texts.
    """
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        rows=summary_rows(summary),
        bars=histogram_rows(summary),
        clips=clips,
        heading=_heading,
        jpeg=_jpeg,
        **_curves(growth),
    )
    atomic_write(path, page)


def summary_rows(summary: dict) -> list[tuple[str, str]]:
    """Formats the output of [`summarize`] as (label, text) rows."""

    def spread(values: dict, unit: str) -> str:
        return f"{values['least']:.3g} to {values['most']:.4g} {unit}, median {values['median']:.3g}"

    videos, captions, windows, unpaired = (summary[n] for n in ("videos", "captions", "windows", "unpaired"))
    words = spread(captions["words_of_one"], "words")
    return [
        ("Videos", f"{videos['count']:,}, {videos['hours']:,.2f} hours; {spread(videos, 's')}"),
        ("Captions", f"{captions['count']:,}, {captions['words']:,} words; {words}"),
        ("Time with a caption", f"{summary['covered']:.1%}"),
        (
            "Windows",
            f"{windows['count']:,} of {number_of(windows['videos'], 'video')}; clips of {spread(windows, 's')}",
        ),
        ("Captions without video", f"{unpaired['captions_without_video']:,}"),
        ("Captions outside their video", f"{unpaired['captions_outside_video']:,}"),
        ("Videos without captions", f"{unpaired['videos_without_captions']:,}"),
    ]


def histogram_rows(summary: dict) -> list[tuple[str, int]]:
    """Returns (range in seconds, number of clips) of the histogram up to the longest clip."""
    edges, counts = summary["clip_lengths"]["edges"], summary["clip_lengths"]["counts"]
    names = [f"{a} to {b} s" for a, b in zip(edges, edges[1:])] + [f"over {edges[-1]} s"]
    used = max((i for i, count in enumerate(counts) if count), default=0) + 1
    return list(zip(names, counts))[:used]


def _curves(growth: dict[str, list[tuple[int, int]]]) -> dict:
    """Computes curves of vocabulary growth and the marks of both logarithmic axes, in pixels of the page's SVG."""
    logs = {name: np.log10(np.array(points, float)) for name, points in growth.items() if len(points) > 1}
    if not logs:
        return {}
    most = np.ceil(np.max([points[-1] for points in logs.values()], axis=0)).clip(min=1)  # powers of ten of x and y
    start, end = np.array([AXES["left"], AXES["bottom"]]), np.array([AXES["right"], AXES["top"]])
    curves = []
    for (name, points), color in zip(logs.items(), SERIES):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in start + points / most * (end - start))
        curves.append({"name": name, "color": color, "points": line, "last": growth[name][-1][::-1]})
    x_marks, y_marks = (np.linspace(a, b, int(n) + 1).round(1).tolist() for a, b, n in zip(start, end, most))
    return {**AXES, "curves": curves, "x_marks": x_marks, "y_marks": y_marks}


def _jpeg(frame: Image.Image) -> str:
    """Encodes a frame as base64."""
    content = io.BytesIO()
    frame.convert("RGB").save(content, "JPEG", quality=80)
    return base64.b64encode(content.getvalue()).decode()
