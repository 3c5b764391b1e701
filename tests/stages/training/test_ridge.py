"""The ridge against its definition and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as TheirRidge

from vitpipe.infra.errors import StageError
from vitpipe.stages.training.measure.fewshot import draw, short_classes
from vitpipe.stages.training.measure.ridge import BIAS, MIN_STD, Ridge

L2 = 1024.0


def problem(num_points: int, num_features: int, num_classes: int = 7):
    rng = np.random.default_rng(0)
    labels = np.arange(num_points) % num_classes
    x = (
        rng.normal(3.0, 2.0, (num_points, num_features))
        + 0.7 * rng.standard_normal((num_classes, num_features))[labels]
    )
    return x.astype(np.float32), labels


def whitened(x, support):
    support = support.astype(np.float64)
    scaled = (x.astype(np.float64) - support.mean(axis=0)) / (support.std(axis=0) + MIN_STD)
    return np.hstack([scaled, np.full((len(x), 1), BIAS)])


@pytest.mark.parametrize("shape", [(35, 64), (65, 64), (210, 64)], ids=["XXt", "just XtX", "XtX"])
def test_weights_solve_the_normal_equations_and_are_scikit_learns(shape):
    x, labels = problem(*shape)
    design, targets = whitened(x, x), 2.0 * np.eye(7)[labels] - 1

    ours = Ridge.fit(x, labels, 7).weights(L2)

    direct = np.linalg.solve(design.T @ design + L2 * np.eye(shape[1] + 1), design.T @ targets)
    theirs = TheirRidge(alpha=L2, fit_intercept=False, solver="svd").fit(design, targets).coef_.T
    np.testing.assert_allclose(ours, direct, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_another_penalty_is_another_solution():
    x, labels = problem(35, 64)
    ridge = Ridge.fit(x, labels, 7)
    assert np.abs(ridge.weights(L2) - ridge.weights(2 * L2)).max() > 1e-6


def test_a_constant_feature_is_harmless():
    x, labels = problem(210, 64)
    x[:, 3] = 5.0
    assert np.isfinite(Ridge.fit(x, labels, 7).weights(L2)).all()


def test_the_test_set_is_whitened_by_the_support():
    x, labels = problem(420, 32)
    ridge = Ridge.fit(x[:210], labels[:210], 7)
    outputs = whitened(x[210:], x[:210]) @ ridge.weights(L2)
    np.testing.assert_array_equal(ridge.predict(x[210:], L2), outputs.argmax(axis=1))
    assert (ridge.predict(x[210:], L2) == labels[210:]).mean() > 0.5


def test_draws_follow_numpys_generator_class_by_class_and_are_nested():
    labels = np.array([1, 0, 0, 1, 2, 2, 2, 0, 1, 0])
    rng = np.random.default_rng(5)
    expected = [rng.permutation(np.flatnonzero(labels == label))[:2] for label in range(3)]

    drawn = draw(labels, 3, seed=5, shots=(1, 2))

    np.testing.assert_array_equal(drawn[2], np.concatenate(expected))
    np.testing.assert_array_equal(drawn[1], [rows[0] for rows in expected])
    assert not np.array_equal(draw(labels, 3, seed=6, shots=(2,))[2], drawn[2])


def test_of_a_class_with_fewer_images_all_are_taken_and_the_classes_counted():
    labels = np.array([0, 0, 0, 1, 1, 2])
    rng = np.random.default_rng(4)  # as big_vision's fewshot_lsr.py: `[indices[:shots] for indices in class_indices]`
    indices = [rng.permutation(np.where(labels == label)[0]) for label in range(4)]
    drawn = draw(labels, 4, seed=4, shots=(1, 2, 25))
    for shots in (1, 2, 25):
        np.testing.assert_array_equal(drawn[shots], np.concatenate([one[:shots] for one in indices]))
    assert [short_classes(labels, 4, shots, False, "shots") for shots in (1, 2, 3, 25)] == [1, 2, 3, 4]
    with pytest.raises(
        StageError, match="3 training images of each class, not fewer: 3 of 4 classes have fewer, class 1"
    ):
        short_classes(labels, 4, 3, True, "shots")
    assert short_classes(labels, 3, 1, True, "shots") == 0, "class 3 alone has none"
