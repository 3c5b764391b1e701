"""How a classifier is right and wrong, beyond one number: by class, in confusions, and in how sure it is.

Knows no model: logits come as arrays. N images, K classes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional import classification

MAX_CONFUSED = 200
"""More classes than this make a matrix nobody reads."""
BINS = 15


def real_accuracy(named_N: npt.NDArray[np.int64], right_NK: npt.NDArray[np.floating]) -> tuple[float, int]:
    """The share of images whose name is among their right ones, and how many images count.

    Images with no right name are left out of both, as in reassessed-imagenet ("Are we done with ImageNet?").
    """
    counted_N = right_NK.any(axis=1)
    hits_N = right_NK[np.arange(len(named_N)), named_N] > 0
    number = int(counted_N.sum())
    return (float(hits_N[counted_N].mean()) if number else 0.0), number


def quality(logits_NK: npt.NDArray[np.floating], labels_N: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Measures beside the accuracy: top 5, mean over classes, accuracy by class, calibration error, confusions.

    A class without images has None. The calibration error is the expected one over 15 bins of confidence.
    """
    logits, labels = torch.as_tensor(logits_NK, dtype=torch.float32), torch.as_tensor(labels_N)
    classes = logits.shape[1]
    present = sorted({int(label) for label in labels_N})
    by_class = classification.multiclass_accuracy(logits, labels, classes, average="none").tolist()
    found: dict[str, Any] = {
        "top5": float(
            classification.multiclass_accuracy(logits, labels, classes, average="micro", top_k=min(5, classes))
        ),
        "mean_per_class": float(np.mean([by_class[label] for label in present])),
        "per_class": [by_class[label] if label in present else None for label in range(classes)],
        "calibration_error": float(
            classification.multiclass_calibration_error(logits.softmax(dim=1), labels, classes, n_bins=BINS)
        ),
    }
    if classes <= MAX_CONFUSED:
        found["confusion"] = classification.multiclass_confusion_matrix(logits, labels, classes).tolist()
    return found
