"""Pictures are resized and cropped as image processors do it, without resizing what is cropped away."""

import numpy as np
import pytest
from PIL import Image

from vidlankd_hf.extraction.pixels import resized


def resized_then_cropped(image: np.ndarray, size: tuple[int, int], resample: int, crop: list[int]) -> np.ndarray:
    height, width = size
    whole = np.asarray(Image.fromarray(image).resize((width, height), resample))
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    return whole[top : top + crop[0], left : left + crop[1]]


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize(
    "shape, size, expected, crop",
    [
        ((97, 171), 64, (64, 112), [56, 56]),  # landscape
        ((171, 97), 64, (112, 64), [64, 64]),  # upright
        ((40, 30), [80, 75], (80, 75), [79, 61]),  # enlarged
        ((301, 45), [33, 40], (33, 40), None),
    ],
)
def test_only_the_crop_is_resized_to_what_resizing_all_gives_but_for_rounding(shape, size, expected, crop, resample):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = resized(image, {"size": size, "resample": resample, "crop": crop})
    reference = resized_then_cropped(image, expected, resample, crop or list(expected))
    assert result.shape == reference.shape and result.dtype == np.uint8
    difference = np.abs(result.astype(int) - reference)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.1  # enlarged by whole numbers, many are near a tie


@pytest.mark.parametrize("size", [None, [20, 30], 20])
def test_pictures_of_the_right_size_are_only_cropped(size):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    settings = {"size": size, "resample": Image.Resampling.BICUBIC, "crop": None}
    assert np.array_equal(resized(image, settings), image)
    assert np.array_equal(resized(image, {**settings, "crop": [11, 10]}), image[4:15, 10:20])


def test_pictures_smaller_than_the_crop_are_an_error():
    with pytest.raises(ValueError, match="10 x 12 is smaller than the crop"):
        resized(np.zeros((10, 12, 3), np.uint8), {"size": None, "resample": 2, "crop": [11, 11]})
