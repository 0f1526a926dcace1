"""Captions name the noun and never say what it looks like."""

import numpy as np
import pytest

from vidlankd_hf.experiments.real_nouns.captions import (
    PATCH_COLOURS,
    PATCH_TEMPLATES,
    TEMPLATES,
    caption,
    patch_caption,
)
from vidlankd_hf.experiments.real_nouns.nouns import COLORS, has_attribute


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_caption_has_a_word_for_a_colour_shape_size_or_material(template):
    assert template.count("{noun}") == 1 and not has_attribute(template.format(noun="banana"))


def test_a_caption_names_its_noun_and_captions_vary():
    captions = {caption("school bus", np.random.default_rng(seed)) for seed in range(40)}
    assert len(captions) > 5 and all("school bus" in text for text in captions)


@pytest.mark.parametrize("colour", PATCH_COLOURS)
def test_a_patch_is_captioned_with_its_colour_alone(colour):
    text = patch_caption(colour, np.random.default_rng(0))
    assert [word for word in COLORS if word in text.split()] == [colour]
    known = {"this", "is", "the", "color", "of", "one", "as", "you", "can", "see", "it", "everything", "here", "now",
             "usually", "word"}  # fmt: skip
    assert all(
        set(template.replace(",", "").replace("{word}", "word").split()) <= known for template in PATCH_TEMPLATES
    )
