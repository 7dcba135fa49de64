"""Selection on the validation span: ties, patience, distance to the data, sameness."""

import numpy as np
import pytest
import torch

from halfstep.nn.build import build_actor
from halfstep.nn.presets import preset
from halfstep.training.selection import (
    Validation,
    best_of,
    comparable,
    histogram,
    is_exhausted,
    nearest_distances,
    sameness_warning,
    stored_actions,
)

from .conftest import VALIDATION, World


def points(*growth: float) -> list[dict[str, float]]:
    return [{"log_growth": value} for value in growth]


def test_the_first_of_equals_is_kept() -> None:
    assert best_of(points(0.0, 0.2, 0.1, 0.2)) == 1
    assert best_of(points(-0.1, -0.1)) == 0


def test_patience_counts_trades_without_a_greater_growth() -> None:
    assert not is_exhausted([], 1)
    assert not is_exhausted(points(0.3, 0.2, 0.3), 3)
    assert is_exhausted(points(0.3, 0.2, 0.3, 0.3), 3)
    assert not is_exhausted(points(0.3, 0.2, 0.3, 0.4), 3)


def test_levels_of_a_side_without_volume_mean_nothing() -> None:
    action = np.array([[0.5, 0.1, 0.2, 0.0, 0.3, 0.4], [0.0, 0.1, 0.2, 0.7, 0.3, 0.4]])
    assert comparable(action).tolist() == [[0.5, 0.1, 0.2, 0, 0, 0], [0, 0, 0, 0.7, 0.3, 0.4]]


def test_distances_by_hand() -> None:
    references = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    actions = np.array([[0.0, 3.0], [1.0, 0.0]])
    np.testing.assert_allclose(nearest_distances(actions, references), [2**0.5, 0.0], atol=1e-9)
    own = nearest_distances(references, references, without_itself=True)
    np.testing.assert_allclose(own, [1.0, 1.0, 2.0])


def test_histogram_by_hand() -> None:
    counts = histogram(np.array([[0.0], [0.05], [0.95], [1.0], [7.0]]))
    assert counts.tolist() == [[2, 0, 0, 0, 0, 0, 0, 0, 0, 3]]


def test_an_actor_that_always_does_the_same_is_named() -> None:
    same = histogram(np.tile([0.45, 0.1, 0.1, 0.0, 0.2, 0.2], (200, 1))).tolist()
    assert sameness_warning({"histogram": same}) == [
        "the actor does the same on 100.0% of the validation bars: it buys 0.4-0.5 and sells 0.0-0.1 of the largest volume"
    ]
    varied = histogram(np.random.default_rng(1).random((200, 6))).tolist()
    assert sameness_warning({"histogram": varied}) == []


@pytest.mark.pitfall("T22")
def test_actions_outside_the_data_are_counted(world: World) -> None:
    stored = stored_actions(world.study_data.store, 1000, np.random.default_rng(1))
    assert stored.shape == (1000, 6)
    validation = Validation(world.study_data, 1.0, seed=1)
    inside = nearest_distances(stored, validation._references)
    assert (inside > validation._near).mean() < 0.1
    far = np.array([[50.0, 9.0, 9.0, 0.0, 0.0, 0.0]])
    assert (nearest_distances(far, validation._references) > validation._near).all()


def test_figures_of_a_trade_add_up(world: World) -> None:
    actor = build_actor(preset("tiny"), seed=0)
    with torch.no_grad():
        actor.out.weight.mul_(100)  # not nearly flat
    point = Validation(world.study_data, 1.0, seed=1).trade(actor, 7)
    bars = VALIDATION[1] - 1 - VALIDATION[0]
    assert point["update"] == 7
    assert sum(point["outcomes"].values()) == bars
    assert [sum(row) for row in point["histogram"]] == [bars] * 6
    assert point["deals"] > 0
    assert 0 < point["in_position"] <= 1
    assert 0 <= point["outside"] <= 1
    flat = Validation(world.study_data, 1.0, seed=1).trade(build_actor(preset("tiny"), seed=0), 1)
    assert flat["log_growth"] == 0.0
    assert flat["deals"] == 0
