"""Orders of blocks that are held as what they are made of."""

import numpy as np
import pytest

from skprune.games import BlockOrders, check_orders, un_security_council


def block_orders(n_samples=3, n_blocks=4, n_players=6):
    rng = np.random.default_rng(0)
    rows = np.arange(n_players)
    return BlockOrders(
        *(rng.permuted(np.tile(rows, (n, 1)), axis=1) for n in (n_samples, n_blocks))
    )


def test_they_are_the_array_of_all_orders():
    orders = block_orders()
    array = np.asarray(orders)
    assert orders.shape == array.shape == (3, 4, 6)
    assert len(orders) == 3
    assert orders.dtype == array.dtype
    for sample, block in np.ndindex(3, 4):
        expected = orders.names[block][orders.shared[sample]]
        np.testing.assert_array_equal(array[sample, block], expected)
    np.testing.assert_array_equal(orders[1:, 2], array[1:, 2])
    np.testing.assert_array_equal(check_orders(orders, 6), array)


def test_a_game_of_one_block_plays_them():
    game = un_security_council()
    orders = block_orders(2, 1, game.n_players)
    np.testing.assert_array_equal(game.walk(orders), game.walk(orders[:, 0]))


@pytest.mark.parametrize(
    ("shared", "names", "message"),
    [
        ([[0, 0, 1]], [[0, 1, 2]], "shared must hold a permutation"),
        ([[0, 1, 2]], [[0, 1, 3]], "names must hold a permutation"),
        ([[0.0, 1.0]], [[0, 1]], "shared must hold .* dtype float64"),
        ([0, 1], [[0, 1]], "shared must hold .* shape \\(2,\\)"),
        ([[0, 1]], [[0, 1, 2]], "as many columns as there are players; got 2 and 3"),
    ],
)
def test_what_is_no_permutation_is_refused(shared, names, message):
    with pytest.raises(ValueError, match=message):
        BlockOrders(shared, names)


def test_a_view_cannot_be_had():
    with pytest.raises(ValueError, match="always a new one"):
        np.array(block_orders(), copy=False)
    with pytest.raises(ValueError, match="shape"):
        check_orders(block_orders(), 5)


def test_they_can_be_walked_through():
    orders = block_orders()
    array = np.asarray(orders)
    for own, expected in zip(orders, array, strict=True):
        np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(orders[-1, 1:], array[-1, 1:])
    np.testing.assert_array_equal(orders[1:], array[1:])
    assert isinstance(orders[1:], BlockOrders)
