"""The histogram counts colors, wherever they are, and extraction takes it with both processors."""

import numpy as np
import pytest
import torch

from vidlankd_hf.experiments.real_nouns import backbones
from vidlankd_hf.experiments.real_nouns.backbones import LEVELS, color_histogram
from vidlankd_hf.extraction.backbones import Backbone
from vidlankd_hf.extraction.streams import Stream


def histogram_of(*colours: tuple[float, float, float]) -> torch.Tensor:
    """The histogram of a picture that has the colours in equal parts, as stripes."""
    picture = torch.zeros(1, 3, 48, 48)
    for number, colour in enumerate(colours):
        picture[0, :, :, number * 48 // len(colours) :] = torch.tensor(colour)[:, None, None]
    with torch.no_grad():
        return color_histogram()(pixel_values=picture).pooler_output.flatten()


@pytest.mark.parametrize("index", [0, 3, 12, 37, 48, 63])
def test_a_plain_color_fills_its_own_bin_most(index):
    levels = np.array([index // LEVELS**2, index // LEVELS % LEVELS, index % LEVELS]) / (LEVELS - 1)
    bins = histogram_of(tuple(levels))
    assert int(bins.argmax()) == index and bins[index] == pytest.approx(1.75, abs=1e-4)
    assert (bins > 0).sum() == 10  # the bin, less those of the same level in two channels


def test_the_histogram_of_a_picture_is_the_mean_over_its_parts():
    red, blue = histogram_of((1, 0, 0)), histogram_of((0, 0, 1))
    torch.testing.assert_close(histogram_of((1, 0, 0), (0, 0, 1)), (red + blue) / 2, atol=0.05, rtol=0)


def test_extraction_reads_the_histogram_of_the_picture_and_of_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "efficientnet_lite", lambda weights: color_histogram())
    backbones.make_backbones(tmp_path / "unused", tmp_path / "backbones")
    middle = str(tmp_path / "backbones" / "color_middle")
    streams = {"color": Stream("color", str(tmp_path / "backbones" / "color"), 1.0)}
    streams["middle"] = Stream("middle", streams["color"].model, 1.0, processor=middle)
    picture = np.full((1, 1, 96, 96, 3), 255, np.uint8)
    picture[:, :, 30:66, 30:66, 1:] = 0  # red on white
    found = {}
    for name, stream in streams.items():
        backbone = Backbone(stream, "cpu")
        size = backbone.pixels["crop"] or backbone.pixels["size"]
        side = size[0] if isinstance(size, list) else size
        edge = (96 - side) // 2
        found[name] = backbone(picture[:, :, edge : 96 - edge, edge : 96 - edge])[0]
    assert found["middle"][48] > 2 * found["color"][48] > 0
