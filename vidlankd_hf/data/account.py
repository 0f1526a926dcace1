"""An account of data: what went in, what is used, and what was left out and why."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.io import atomic_write


class LeftOut(NamedTuple):
    """Something that is not used."""

    what: str  # such as "captions"
    reason: str
    name: str
    amount: float  # 1, or seconds


class Account:
    """Counts what was read and what is used, and lists everything else. In = used + left out.

    Attributes:
        read: What went in, by kind: number of "videos", "captions" and "caption files", and "seconds" of video.
        used: How much of it reaches the model, by kind.
        left_out: The rest.
    """

    def __init__(self) -> None:
        self.read: defaultdict[str, float] = defaultdict(int)
        self.used: defaultdict[str, float] = defaultdict(int)
        self.left_out: list[LeftOut] = []

    def leave_out(self, what: str, reason: str, name: str, amount: float = 1) -> None:
        """Notes that something is not used."""
        if amount:
            self.left_out.append(LeftOut(what, reason, name, amount))

    def summary(self, names: int = 5) -> dict[str, dict[str, Any]]:
        """Returns, for each kind, `{"in", "used", "left_out": {reason: {"amount", "first": [names]}}}`.

        Args:
            names: How many names to give for each reason.
        """
        summary: dict[str, dict[str, Any]] = {}
        for what in self.read:
            summary[what] = {"in": self.read[what], "used": self.used[what], "left_out": {}}
        for what, reason, name, amount in self.left_out:
            entry = summary[what]["left_out"].setdefault(reason, {"amount": 0, "first": []})
            entry["amount"] += amount
            if len(entry["first"]) < names:
                entry["first"].append(name)
        return summary

    def write(self, path: str | Path) -> None:
        """Writes everything that was left out as lines of JSON."""
        atomic_write(path, "".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in self.left_out))
