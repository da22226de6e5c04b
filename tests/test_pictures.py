import re

import numpy as np
import pytest
from PIL import ImageColor

from petseg_lightning.pictures import ERROR_COLOUR, class_colours, confusion_figure, errors, overlay, panel


@pytest.mark.parametrize(
    "names",
    [
        ("pet", "background", "border"),
        ("background", "cat", "dog"),
        ("background", "pet", "cat", "dog", "border", "sky", "road"),
        ("dog", "border", *"abcdefgh", "pet"),
        tuple(f"class {i}" for i in range(254)),
    ],
)
def test_every_class_has_a_colour_of_its_own(names):
    colours = class_colours(names)
    assert tuple(colours) == names
    assert len(set(colours.values())) == len(names)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())
    assert class_colours(names) == colours


def test_a_class_looks_the_same_in_every_reading():
    trimap, species = class_colours(("pet", "background", "border")), class_colours(("background", "cat", "dog"))
    assert trimap["background"] == species["background"]
    assert trimap["pet"] == species["cat"]


def test_an_overlay_is_an_exact_blend():
    names = ("pet", "background", "border")
    colours = class_colours(names)
    image = np.arange(4 * 3, dtype=np.uint8).reshape(1, 4, 3) * 20
    before = image.copy()
    result = overlay(image, np.array([[0, 1, 2, 255]]), list(colours.values()), opacity=0.5)
    assert result.dtype == np.uint8
    for column, name in ((0, "pet"), (2, "border")):
        colour = np.array(ImageColor.getrgb(colours[name]))
        np.testing.assert_array_equal(result[0, column], ((before[0, column] + colour) / 2).round())
    np.testing.assert_array_equal(result[0, 1], before[0, 1])  # background
    np.testing.assert_array_equal(result[0, 3], before[0, 3] // 2)  # ignored
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("opacity", "expected"), [(0, (10, 20, 30)), (1, ImageColor.getrgb("#e69f00"))])
def test_the_opacity_is_that_of_the_classes(opacity, expected):
    image = np.full((2, 2, 3), (10, 20, 30), np.uint8)
    assert (overlay(image, np.zeros((2, 2), int), ["#e69f00"], opacity) == expected).all()


def test_wrong_pixels_are_red_and_the_rest_is_grey():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    truth = np.array([[0, 1, 2, 255]] * 3, np.uint8)
    result = errors(image, truth, np.array([[0, 2, 2, 1]] * 3, np.uint8))
    assert (result[:, 1] == ImageColor.getrgb(ERROR_COLOUR)).all()
    rest = result[:, [0, 2, 3]]
    assert (rest == rest[..., :1]).all()


def test_a_panel_is_a_grid_in_order():
    tiles = [[np.full((8, 8, 3), 40 * (2 * row + column), np.uint8) for column in range(2)] for row in range(3)]
    sheet = np.asarray(panel(tiles, ("picture", "truth"), tile=30))
    centres = [[sheet[-15 - 6 - 36 * (2 - row), 6 + 15 + 36 * column, 0] for column in range(2)] for row in range(3)]
    assert centres == [[0, 40], [80, 120], [160, 200]]
    assert (sheet[:26] < 128).any()  # the titles


def test_a_confusion_matrix_shows_shares_of_the_truth():
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ("cat", "dog"))
    (axes,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axes.texts}  # by (column, row)
    assert texts == {(0, 0): "75.0%\n3", (1, 0): "25.0%\n1", (0, 1): "0.0%\n0", (1, 1): "0.0%\n0"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
