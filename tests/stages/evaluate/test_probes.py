"""The classifiers on frozen features, against scikit-learn and against votes counted by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from vitpipe.stages.evaluate.config import EvaluateConfig
from vitpipe.stages.evaluate.probes import choose_l2, fit_logistic, held_out, linear, nearest

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
POINTS = (RNG.normal(size=(90, 8)) + 1.5 * np.eye(8)[LABELS]).astype(np.float32)
TEST = (RNG.normal(size=(60, 8)) + 1.5 * np.eye(8)[np.arange(60) % 3]).astype(np.float32)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_logistic_regression_is_that_of_scikit_learn(l2):
    weight, bias = fit_logistic(torch.tensor(POINTS), torch.tensor(LABELS), 3, l2)
    theirs = LogisticRegression(C=1 / (l2 * len(POINTS)), tol=1e-8, max_iter=5000).fit(POINTS, LABELS)
    np.testing.assert_allclose(weight, theirs.coef_, atol=2e-3)
    centred = bias.numpy() - bias.numpy().mean()  # a common constant changes no probability
    np.testing.assert_allclose(centred, theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)
    other = LogisticRegression(C=2 / (l2 * len(POINTS)), tol=1e-8, max_iter=5000).fit(POINTS, LABELS)
    assert np.abs(other.coef_ - theirs.coef_).max() > 1e-2, "another penalty is another solution"


def test_the_nearest_vote_as_scikit_learn_lets_them():
    ours = nearest(POINTS, LABELS, TEST, 3, 7, 0.07, CPU)
    unit = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    vote = KNeighborsClassifier(7, weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07)).fit(unit, LABELS)
    assert (ours == vote.predict(TEST / np.linalg.norm(TEST, axis=1, keepdims=True))).all()
    assert (ours != nearest(POINTS, LABELS, TEST, 3, 1, 0.07, CPU)).any(), "more neighbours are another vote"
    assert nearest(POINTS[:2], LABELS[:2], TEST, 3, 20, 0.07, CPU).max() <= 1, "fewer points than neighbours"


def test_held_out_images_choose_the_penalty():
    rng = np.random.default_rng(1)
    noisy, test = (
        np.hstack([points, rng.normal(size=(len(points), 150))]).astype(np.float32) for points in (POINTS, TEST)
    )
    sweep, dev = (1e-4, 0.1, 10.0), np.isin(np.arange(90), held_out(LABELS, 0))
    x = (noisy - noisy.mean(axis=0)) / noisy.std(axis=0)
    right = {}
    for l2 in sweep:
        fitted = LogisticRegression(C=1 / (l2 * (~dev).sum()), tol=1e-8, max_iter=5000).fit(x[~dev], LABELS[~dev])
        right[l2] = (fitted.predict(x[dev]) == LABELS[dev]).sum()
    chosen = choose_l2(noisy, LABELS, 3, sweep, 0, CPU)
    named = linear(noisy, LABELS, test, 3, chosen, CPU)
    assert chosen == max(sweep, key=lambda l2: (right[l2], l2)) and len(set(right.values())) > 1
    whole = LogisticRegression(C=1 / (chosen * 90), tol=1e-8, max_iter=5000).fit(x, LABELS)
    theirs = whole.predict((test - noisy.mean(axis=0)) / noisy.std(axis=0))
    assert (named == theirs).mean() >= 59 / 60, "fitted again on all, held-out images too"
    assert choose_l2(POINTS[:3], LABELS[:3], 3, (1.0, 1e-3, 0.1), 0, CPU) == 0.1, (
        "one image a class leaves none to choose with"
    )


def test_what_is_held_out():
    rows = held_out(LABELS, 0)
    assert len(rows) == 18 and np.bincount(LABELS[rows]).tolist() == [6, 6, 6]
    assert (held_out(LABELS, 0) == rows).all() and (held_out(LABELS, 1) != rows).any()
    assert held_out(np.array([0, 1, 1]), 0).tolist() in ([1], [2]), "never the only image of a class"


def test_config_says_what_belongs_to_what():
    assert EvaluateConfig(method="fewshot").drawn == (5, 1, 10, 25) and EvaluateConfig(method="linear").drawn is None
    assert EvaluateConfig(method="knn").scored_seeds == (0,)
    assert EvaluateConfig(method="knn", shots=(5,)).scored_seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="takes no shots"):
        EvaluateConfig(method="real", shots=(5,))
    with pytest.raises(ValueError, match="own head"):
        EvaluateConfig(method="classify", features="untrained")
