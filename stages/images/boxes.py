"""The boxes of a batch's training crops: by our extension, and where it is not built, or ten tries do not do, by
`crops`, to the pixel. Knows no files."""

import numpy as np

from vitpipe.stages.images import crops
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.keys import Ints


def boxes(shape_B2: Ints, positions_B: Ints, seed: int, by_inception: bool, min_area: float | None) -> Ints:
    """Choose a box (B, 4) of each image by `inception` or by `random_resized`."""
    least = min_area or (crops.INCEPTION_MIN_AREA if by_inception else crops.TORCHVISION_MIN_AREA)
    extension = loaded_extension()
    found_B4 = np.zeros((len(shape_B2), 4), dtype=np.int64)
    if extension is not None:
        found_B4 = extension.boxes(
            shape_B2, crops.draws_of(positions_B, seed), least, None if by_inception else crops.LOG_RATIOS
        )
    choose = crops.inception if by_inception else crops.random_resized
    for b in np.flatnonzero(found_B4[:, 2] == 0).tolist():
        found_B4[b] = choose(*shape_B2[b].tolist(), least, crops.crop_tries(positions_B[b : b + 1], seed)[0])
    return found_B4
