import pandas as pd
import pytest

from petseg_lightning.report.causes import measure_causes

# edge_contrast, pet_fraction, species_confusion, boundary_error_share, fraction_background
PLAIN = (0.5, 0.3, 0.0, 0.2, 0.7)


def tags(*rows):
    """The tags of each row; six plain rows of strong edges stand behind them."""
    columns = [
        "edge_contrast",
        "pet_fraction",
        "species_confusion",
        "boundary_error_share",
        "fraction_background",
    ]
    table = pd.DataFrame([*rows, *[PLAIN] * 6], columns=columns).astype(float)
    table["fraction_cat"] = 1 - table["fraction_background"]
    return [[cause.tag(i) for cause in measure_causes(table) if cause.holds[i]] for i in range(len(table))]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (PLAIN, []),
        ((0.08, 0.3, 0.0, 0.2, 0.7), ["weak edge 0.08"]),
        ((0.5, 0.6, 0.0, 0.2, 0.4), ["fills the picture 60%"]),
        ((0.5, 0.59, 0.0, 0.2, 0.41), []),
        ((0.5, 0.1, 0.0, 0.2, 0.79), ["small animal 10%"]),
        ((0.5, 0.11, 0.0, 0.2, 0.79), []),
        ((0.5, 0.3, 0.25, 0.2, 0.7), ["cat/dog confusion 25%"]),
        ((0.5, 0.3, 0.24, 0.2, 0.7), []),
        ((0.5, 0.2, 0.0, 0.2, 0.8), ["class imbalance 80%"]),
        ((0.5, 0.3, 0.0, 0.9, 0.7), ["imprecise boundary 90%"]),
        ((0.5, 0.3, 0.0, 0.89, 0.7), []),
        ((0.1, 0.9, 0.4, 0.95, 0.1), ["weak edge 0.10", "fills the picture 90%", "cat/dog confusion 40%",
                                      "class imbalance 90%", "imprecise boundary 95%"]),
        ((None, None, None, None, 0.7), []),
    ],
)  # fmt: skip
def test_a_row_gets_the_tags_of_its_causes_and_no_other(row, expected):
    assert tags(row) == [expected, *[[]] * 6]


def test_weak_edges_are_the_lowest_quarter():
    table = pd.DataFrame({"edge_contrast": [0.1 * i for i in range(1, 9)]})
    (cause,) = measure_causes(table)
    assert list(cause.holds) == [True] * 2 + [False] * 6
    assert "below 0.28, the lowest 25% of these pictures" in cause.rule


def test_cause_without_a_measure_is_left_out():
    table = pd.DataFrame({"pet_fraction": [0.3, 0.7], "species_confusion": [None, None]})
    assert [cause.name for cause in measure_causes(table)] == ["fills the picture", "small animal"]
    assert measure_causes(pd.DataFrame()) == []
