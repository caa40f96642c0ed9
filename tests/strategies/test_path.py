"""A compression path: sizes ascend, the better of two wins."""

import numpy as np
import pytest

from skprune.games import AirportGame, un_security_council
from skprune.strategies import CompressionPath


def test_masks_are_sorted_by_size_and_the_better_one_is_kept():
    game = AirportGame([1.0, 2.0, 4.0])
    masks = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=bool)
    path = CompressionPath.of(game, masks)
    np.testing.assert_array_equal(path.sizes, [1, 3])
    np.testing.assert_array_equal(path.masks, masks[[2, 0]])
    np.testing.assert_array_equal(path.payoffs, [4, 4])


def test_the_first_of_two_equal_masks_is_kept():
    masks = np.array([[0, 1], [1, 0]], dtype=bool)
    path = CompressionPath.sorted(masks, np.array([1.0, 1.0]))
    np.testing.assert_array_equal(path.masks, masks[:1])


def test_a_generator_of_masks_is_taken():
    path = CompressionPath.of(
        un_security_council(), (np.arange(15) < k for k in (9, 2))
    )
    assert path.sizes.tolist() == [2, 9]
    assert path.payoffs.tolist() == [0.0, 1.0]


def test_a_size_that_is_not_there_is_answered_with_those_that_are():
    path = CompressionPath.of(un_security_council(), [np.arange(15) < 9])
    np.testing.assert_array_equal(path.mask_at(9), np.arange(15) < 9)
    with pytest.raises(ValueError, match=r"size=8 is not on the path; it holds \[9\]"):
        path.mask_at(8)
