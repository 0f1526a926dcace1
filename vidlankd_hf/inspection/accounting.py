"""The account of captioned video: what was read, what the model sees, and what was left out and why."""

import json
from collections.abc import Iterator
from pathlib import Path

from ..data.account import Account
from ..data.features import FeatureStore
from ..data.pairing import Pairs
from ..extraction.tasks import LEFT_OUT, QUARANTINE
from .inspect import covered_seconds


def close_account(account: Account, store: FeatureStore, pairs: Pairs) -> None:
    """Adds videos, captions and seconds to the account that [`read_captions`] opened.

    Args:
        account: Counts the captions that were read.
        store: The features. Files that extraction left out, and videos that failed, are read from its folder.
        pairs: Output of [`pair_captions`] for all captions that were read.
    """
    used, counts = set(pairs.by_video), account.read
    for name in (LEFT_OUT, QUARANTINE):
        for row in _rows(store.folder / name):
            counts["videos"] += 1
            account.leave_out("videos", row["reason"], row["path"])
    for video in store.video_ids:
        seconds = store.duration(video)
        counts["videos"] += 1
        counts["seconds"] += seconds
        if video not in used:
            account.leave_out("videos", "has no caption", video)
            account.leave_out("seconds", "of videos without captions", video, seconds)
            continue
        covered = covered_seconds(pairs.by_video[video])
        account.used["videos"] += 1
        account.used["seconds"] += covered
        account.leave_out("seconds", "without a caption", video, seconds - covered)
    for captions in pairs.by_video.values():
        account.used["captions"] += len(captions)
    for row in pairs.unpaired.rows:
        if row["what"].startswith("caption"):
            reason = row["what"].removeprefix("caption ").replace("without", "has no").replace("outside", "is outside")
            account.leave_out("captions", reason, f"{row['video']} at {row['start']} s: {row['text'][:80]}")


def account_lines(account: Account) -> list[str]:
    """The account as lines of text: amounts in, amounts used, and what was left out, with the first names."""
    lines = []
    for what, entry in account.summary().items():
        lines.append(f"{what}: {_number(entry['in'])} in, {_number(entry['used'])} used")
        for reason, left in entry["left_out"].items():
            lines.append(f"    {_number(left['amount'])} left out: {reason} ({', '.join(left['first'])})")
    return lines


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.1f}"


def _rows(path: Path) -> Iterator[dict]:
    if path.is_file():
        try:
            yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}): make its folder again") from error
