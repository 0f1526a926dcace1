"""Contact sheets of clips with their captions: a PNG image, and a self-contained HTML page with statistics."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..utils.io import atomic_write
from .inspect import Clip

THUMBNAIL = (180, 135)
TEMPLATE = Path(__file__).with_name("contact_sheet.html")
GAP, MARGIN, COLUMNS, TEXT_LINES = 4, 28, 2, 4
INK, FAINT, PAPER, BLANK = "#1b1b1b", "#6a6a6a", "#ffffff", "#ececec"
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
            _draw_frames(sheet, draw, clips[i], x, y, num_frames)
            if clips[i].problem:
                draw.text((x + 8, y + 8), _wrap(clips[i].problem, label, width - 16, 1)[0], FAINT, label)
            draw.text((x, y + THUMBNAIL[1] + 5), _wrap(_heading(clips[i]), label, width, 1)[0], FAINT, label)
            for number, line in enumerate(texts[i]):
                draw.text((x, y + THUMBNAIL[1] + 26 + 21 * number), line, INK, body)
        y += height
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    atomic_write(path, content.getvalue())


def _draw_frames(sheet: Image.Image, draw: ImageDraw.ImageDraw, clip: Clip, x: int, y: int, num_frames: int) -> None:
    for place in range(num_frames):
        left = x + place * (THUMBNAIL[0] + GAP)
        draw.rectangle((left, y, left + THUMBNAIL[0] - 1, y + THUMBNAIL[1] - 1), BLANK)
        if place < len(clip.frames):
            frame = clip.frames[place].copy()
            frame.thumbnail(THUMBNAIL)
            sheet.paste(frame, (left + (THUMBNAIL[0] - frame.width) // 2, y + (THUMBNAIL[1] - frame.height) // 2))


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

    The page needs no other files, escapes all text from captions and file names, and runs no scripts.

    Args:
        path: The HTML file.
        title: Title of the page.
        summary: Output of [`summarize`].
        clips: The clips, from [`sample_clips`].
        growth: Outputs of [`vocabulary_growth`] by the name of their texts.
    """
    numbers = "".join(f"<tr><th>{html.escape(name)}<td>{html.escape(value)}" for name, value in summary_rows(summary))
    cards = "".join(
        f"<article><div class=frames>{''.join(map(_embedded, clip.frames))}</div>"
        f"<p class=faint>{html.escape(_heading(clip))}{html.escape(f': {clip.problem}') if clip.problem else ''}</p>"
        f"<p dir=auto>{html.escape(clip.text)}</p></article>"
        for clip in clips
    )
    body = f"<h1>{html.escape(title)}</h1><table>{numbers}</table>{_histogram(summary)}{_curves(growth)}"
    body += f"<h2>{len(clips)} random windows</h2><main>{cards}</main>" if clips else ""
    atomic_write(path, TEMPLATE.read_text(encoding="utf-8").format(title=html.escape(title), body=body))


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
        ("Windows", f"{windows['count']:,} of {windows['videos']:,} videos; clips of {spread(windows, 's')}"),
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


def _histogram(summary: dict) -> str:
    rows = histogram_rows(summary)
    most = max(count for _, count in rows) or 1
    bars = "".join(
        f"<tr><th>{name}<td><div class=bar style='width:{400 * count / most:.0f}px'></div>{count:,}"
        for name, count in rows
    )
    return f"<h2>Clip lengths</h2><table class=bars>{bars}</table>"


def _curves(growth: dict[str, list[tuple[int, int]]]) -> str:
    """Draws vocabulary growth as an inline SVG with logarithmic axes."""
    growth = {name: points for name, points in growth.items() if len(points) > 1}
    if not growth:
        return ""
    width, height, left, bottom = 640, 340, 70, 46
    logs = {name: np.log10(np.array(points, float)) for name, points in growth.items()}
    x_max, y_max = (np.ceil(max(points[:, axis].max() for points in logs.values())) for axis in (0, 1))

    def place(point) -> str:
        x, y = left + point[0] / x_max * (width - left - 10), (height - bottom) * (1 - point[1] / y_max) + 8
        return f"{x:.1f},{y:.1f}"

    marks = []
    for power in range(int(x_max) + 1):
        x, y = place((power, 0)).split(",")
        marks.append(f"<text x={x} y={height - bottom + 28} text-anchor=middle>{10**power:,}</text>")
        marks.append(f"<path class=grid d='M{x} {y}V8'/>")
    for power in range(int(y_max) + 1):
        x, y = place((0, power)).split(",")
        marks.append(f"<text x={left - 8} y={float(y) + 4:.1f} text-anchor=end>{10**power:,}</text>")
        marks.append(f"<path class=grid d='M{x} {y}H{width - 10}'/>")
    lines = "".join(
        f"<polyline points='{' '.join(map(place, points))}' stroke='{colour}'/>"
        for points, colour in zip(logs.values(), SERIES)
    )
    keys = "".join(
        f"<li style='color:{colour}'>{html.escape(name)}: {points[-1][1]:,} distinct words of {points[-1][0]:,}"
        for (name, points), colour in zip(growth.items(), SERIES)
    )
    return (
        f"<h2>Vocabulary: distinct words among the first n words</h2><ul>{keys}</ul>"
        f"<svg width={width} height={height}>{''.join(marks)}{lines}</svg>"
    )


def _embedded(frame: Image.Image) -> str:
    content = io.BytesIO()
    frame.convert("RGB").save(content, "JPEG", quality=80)
    return f"<img src='data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}' alt=''>"
