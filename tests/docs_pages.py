"""The pages of README and docs, and their code blocks, for tests.

A block that cannot run has `<!-- not run: why -->` on the line before it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: .{5,} -->\n\s*\Z")


@dataclass
class Block:
    page: str
    language: str
    code: str
    runs: bool


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[Block]:
    text = text_of(page)
    return [
        Block(name_of(page), found["language"], found["code"], not NOT_RUN.search(text, 0, found.start()))
        for found in FENCE.finditer(text)
    ]


BLOCKS = {name_of(page): blocks_of(page) for page in PAGES}


def pages_with(language: str) -> list[str]:
    return [name for name, blocks in BLOCKS.items() if any(b.language == language and b.runs for b in blocks)]
