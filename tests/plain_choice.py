"""Which images an ingest keeps, and where they go, image by image in memory: what parts of any size have to equal."""

from vitpipe.stages.ingest.choose.duplicate import Duplicate, keep_order
from vitpipe.stages.ingest.draw import unit_hash


def without_duplicates(images, excluded):
    kept, dropped = {}, []
    for image in sorted(images, key=keep_order):
        content = image.seen.pixels_sha256
        if content in excluded:
            dropped.append(Duplicate(image.item.name, excluded[content], "pixels", True))
        elif content in kept:
            other = kept[content]
            equal = "bytes" if other.seen.sha256 == image.seen.sha256 else "pixels"
            dropped.append(Duplicate(image.item.name, other.item.name, equal, other.item.labels == image.item.labels))
        else:
            kept[content] = image
    return list(kept.values()), sorted(dropped, key=lambda one: one.source)


def planned(images, config):
    """Path, number of the first image, and images of each shard."""
    splits, plans = {}, []
    for image in images:
        splits.setdefault(split_of(image, images, config), []).append(image)
    for split, members in sorted(splits.items()):
        members.sort(key=lambda image: (unit_hash("shuffle", config.shuffle_seed, image.item.name), image.item.name))
        first, shard, size = 0, [], 0
        for image in [*members, None]:
            takes = 0 if image is None else 1536 + -(-image.seen.size // 512) * 512
            full = (
                len(shard) == config.images_per_shard if config.images_per_shard else size + takes > config.shard_bytes
            )
            if shard and (full or image is None):
                plans.append(
                    (f"{split}-{sum(plan[0].startswith(f'{split}-') for plan in plans):06d}.tar", first, shard)
                )
                first, shard, size = first + len(shard), [], 0
            shard, size = [*shard, image], size + takes
    return plans


def split_of(image, images, config):
    if isinstance(config.splits, str):
        return image.item.split or "train"
    lowest = min(one.seen.sha256 for one in images if one.seen.pixels_sha256 == image.seen.pixels_sha256)
    place, end = int(lowest[:16], 16) / 2**64, 0.0
    for name, share in sorted(config.splits.items()):
        end += share
        if place < end:
            return name
    return max(config.splits)
