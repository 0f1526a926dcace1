"""Small benchmarks in their official layout, and small packages of pictures."""

import json

import pytest
from fruit import FRUIT
from PIL import Image

from vidlankd_hf.evaluation.zero_shot import CODA_COLORS
from vidlankd_hf.experiments.real_nouns import pictures


@pytest.fixture
def benchmarks(tmp_path):
    """Memory Colors with the first four nouns, CoDa with all of `FRUIT`, and tiny sets of the others."""
    root = tmp_path / "visual_commonsense"
    for folder in ("memory_colors", "coda", "vicomte/color", "vicomte/material", "spatial"):
        (root / folder).mkdir(parents=True)

    def write(name, rows):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("memory_colors/memory_colors.jsonl",
          [{"descriptor": "a", "item": n, "label": FRUIT[n]} for n in list(FRUIT)[:4]])  # fmt: skip
    write(
        "coda/objects.jsonl", [{"class_id": n, "object_s": n, "object_pl": f"{n}s", "areis_pl": "are"} for n in FRUIT]
    )
    shares = {n: {c: 0.9 if c == colour else 0.01 for c in CODA_COLORS} for n, colour in FRUIT.items()}
    write("coda/annotations.jsonl", [{"class_id": n, "included": True, **shares[n]} for n in FRUIT])
    for split in ("train", "test"):
        write(f"vicomte/color/{split}.jsonl", [{"sub": n, "obj": FRUIT[n], "alt": "blue"} for n in ("lime", "pea")])
        write(f"vicomte/material/{split}.jsonl", [{"sub": n, "obj": "wood", "alt": "tin"} for n in ("fern", "chair")])
    for name in ("size", "height"):
        write(f"spatial/{name}.json", [{"obj_a": "pea", "obj_b": "chair", "label": 0}])
    write("spatial/posrel.json", [{"text": "A man sits. ", "obj_a": "man", "obj_b": "chair", "label": 1}])
    return tmp_path


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages in which emoji show a banana and a red apple, and files show an apple, a fern and a man."""
    root = tmp_path / "packages"
    rows = [
        {"label": "banana", "hexcode": "1F34C", "group": 4, "tags": ["fruit", "plantain"]},
        {"label": "red apple", "hexcode": "1F34E", "group": 4, "tags": ["fruit"]},
        {"label": "smiling face", "hexcode": "1F600", "group": 0, "tags": []},
        {"label": "wooden shoe", "hexcode": "1F97F", "group": 7, "tags": []},
    ]
    names = root / "names" / "package" / "en"
    names.mkdir(parents=True)
    (names / "data.json").write_text(json.dumps(rows))

    def draw(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (80, 60), "white")
        image.paste((200, 30, 30), (20, 10, 60, 50))
        image.save(path)

    for package, template in pictures.EMOJI.items():
        (root / package).mkdir()
        if not template.endswith(".svg"):
            for code in ("1f34c", "1f34e"):
                draw(root / package / template.format(code))
    for package, names in {"art4apps": ["food/apple.jpg", "jobs/banana.jpg"], "tuxpaint": ["plants/fern-2.png"],
                           "openclipart": ["food/apple_by_me_01.png", "food/cherry_tom_01.png"]}.items():  # fmt: skip
        for name in names:
            draw(root / package / pictures.FILES[package][0] / name)
    monkeypatch.setattr(pictures, "fetch", lambda key, cache: cache / key)
    return root
