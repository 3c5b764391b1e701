"""Every official format by the name that the registry gives it."""

from vitpipe.stages.ingest.benchmarks.array_files import ARRAYS
from vitpipe.stages.ingest.benchmarks.class_trees import CALTECH101, EUROSAT, IMAGENET_V2, RESISC45, UC_MERCED
from vitpipe.stages.ingest.benchmarks.entries import Reader
from vitpipe.stages.ingest.benchmarks.imagenet import IMAGENET, IMAGENET_REAL
from vitpipe.stages.ingest.benchmarks.listed_trees import BIRDS, CARS, DTD, FLOWERS, PETS, SUN397
from vitpipe.stages.ingest.benchmarks.matrices import DSPRITES, PATCH_CAMELYON, SMALLNORB
from vitpipe.stages.ingest.benchmarks.retinopathy import RETINOPATHY
from vitpipe.stages.ingest.benchmarks.scenes import CLEVR, KITTI
from vitpipe.stages.ingest.benchmarks.tfrecord import DMLAB

READERS: dict[str, Reader] = {
    "idx": ARRAYS, "cifar": ARRAYS, "svhn": ARRAYS,
    "pets": PETS, "flowers": FLOWERS, "dtd": DTD, "sun397": SUN397, "cars": CARS, "birds": BIRDS,
    "caltech101": CALTECH101, "eurosat": EUROSAT, "resisc45": RESISC45, "uc_merced": UC_MERCED,
    "smallnorb": SMALLNORB, "dsprites": DSPRITES, "patch_camelyon": PATCH_CAMELYON, "dmlab": DMLAB,
    "retinopathy": RETINOPATHY, "clevr": CLEVR, "kitti": KITTI,
    "imagenet": IMAGENET, "imagenet_real": IMAGENET_REAL, "imagenet_v2": IMAGENET_V2,
}  # fmt: skip
