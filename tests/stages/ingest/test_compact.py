"""What the driver holds of many images is small; rows come back as they went in; choices are those of plain code."""

import hashlib
import pickle
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.stages.ingest.choose.select import Duplicate, keep_order, plan_shards, tar_bytes, without_duplicates
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import Item, Items, Listing, unit_hash
from vitpipe.stages.ingest.look.image import Image, ImageTable
from vitpipe.stages.ingest.look.scan import RejectedImage, SoundImage

BYTES_EACH = 150
COUNT = 20_000


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def checked(number: int, **other: object) -> SoundImage:
    facts = {
        "sha256": digest(number), "pixels_sha256": digest("pixels", number), "size": 100_000 + number, "ext": "jpg",
        "width": 500, "height": 375, "place": (number // 512, 0),
    }  # fmt: skip
    return SoundImage(**{**facts, **other})


def test_twenty_thousand_images_take_few_bytes_each():
    config = IngestConfig.model_validate({"source": {"kind": "digits"}, "splits": {"train": 0.9, "test": 0.1}})
    tracemalloc.start()
    try:
        items = Items(
            Item(f"n{number // 1300:08d}/n_{number:08d}.JPEG", (number // 1300,), None, 100_000)
            for number in range(COUNT)
        )
        listing = Listing(items.by_name(), ())
        images = ImageTable(listing.items)
        for start in range(0, COUNT, 512):
            rows = range(start, min(start + 512, COUNT))
            images.put(rows, [checked(number) for number in rows])
        kept, dropped = without_duplicates(images.sound(range(COUNT)), {})
        plans = plan_shards(kept, config)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (sum(len(plan.images) for plan in plans), dropped) == (COUNT, [])
    assert images.nbytes / COUNT < BYTES_EACH
    assert held / COUNT < 1.15 * BYTES_EACH  # room that columns grow into, and the rows of shards
    assert peak / COUNT < 2.2 * BYTES_EACH  # sorting by digest


names = st.text(st.characters(codec="utf-8"), max_size=12) | st.just("\udcff.jpg")
items = st.builds(
    Item, names, st.lists(st.integers(0, 30_000), max_size=3).map(tuple),
    st.sampled_from([None, "train", "test", "val"]),
    st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=3).map(tuple), st.sampled_from(["", "no label"]),
    st.integers(0, 2**63 - 1),
)  # fmt: skip
seen = st.builds(
    checked, st.integers(0, 9), size=st.integers(1, 10**8), ext=st.sampled_from(["jpg", "png", "webp"]),
    place=st.tuples(st.integers(0, 99), st.integers(0, 2**40)),
    likeness=st.none() | st.binary(min_size=32, max_size=32),
    reencoded=st.booleans(), sha256=st.sampled_from(["00" * 32, "ab" * 31 + "00", "00" * 31 + "01"]),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.lists(items, max_size=12), st.data())
def test_rows_come_back_as_they_went_in_also_from_afar(rows, data):
    kept = Items(rows)
    assert list(kept) == rows
    assert [one.name for one in kept.by_name()] == sorted(one.name for one in rows)
    start, stop = (data.draw(st.integers(0, len(rows))) for _ in range(2))
    assert list(pickle.loads(pickle.dumps(kept[start:stop]))) == rows[start:stop]
    found = data.draw(st.lists(seen, min_size=len(rows), max_size=len(rows)))
    images = ImageTable.of(rows, found)
    pairs = [Image(*pair) for pair in zip(rows, found, strict=True)]
    assert list(images) == pairs
    assert list(pickle.loads(pickle.dumps(images[start:stop]))) == pairs[start:stop]


def test_a_view_travels_without_the_rest():
    images = ImageTable.of(
        [Item(str(number), (0,)) for number in range(2000)], [checked(number) for number in range(2000)]
    )
    assert len(pickle.dumps(images[7:9])) < 3000 < len(pickle.dumps(images)) / 50


def test_the_bad_are_no_images():
    images = ImageTable(Items([Item(name, (0,)) for name in "abc"]))
    images.put(range(1, 3), [RejectedImage("cut"), checked(2)])
    assert [image.item.name for image in images.sound(range(3))] == ["c"]


few = st.integers(0, 3)
alike = st.lists(
    st.builds(lambda n, split, pixels, size: (split, checked(n, pixels_sha256=digest(pixels), size=size)),
              few, st.sampled_from([None, "train", "test"]), few, st.integers(1, 4000)),
    max_size=25,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(
    alike, st.sets(few), st.booleans(), st.sampled_from(["folders", {"a": 0.3, "b": 0.5, "c": 0.2}, {"train": 1.0}]),
    st.sampled_from([{"images_per_shard": 3}, {"shard_bytes": 9000}]),
)  # fmt: skip
def test_choices_are_those_of_plain_code(rows, barred, exact, splits, cut):
    split_given = splits == "folders"
    listed = [
        Item(f"{place:02d}", (place % 2,), split if split_given else None) for place, (split, _) in enumerate(rows)
    ]
    found = [one for _, one in rows]
    source = {"kind": "folder", "root": "/nowhere"}
    config = IngestConfig.model_validate({"source": source, "splits": splits, "shuffle_seed": 3, **cut})
    excluded = {digest(one): f"uri#{one}" for one in barred}
    images, plain = ImageTable.of(listed, found), [Image(*pair) for pair in zip(listed, found, strict=True)]
    if exact:
        images, dropped = without_duplicates(images, excluded)
        plain, wanted = plainly_without_duplicates(plain, excluded)
        assert (list(images), dropped) == (plain, wanted)
    plans = [(plan.path, plan.first, list(plan.images)) for plan in plan_shards(images, config)]
    assert plans == plainly_planned(plain, config)


def plainly_without_duplicates(images, excluded):
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


def plainly_planned(images, config):
    splits, plans = {}, []
    for image in images:
        splits.setdefault(plainly_split(image, images, config), []).append(image)
    for split, members in sorted(splits.items()):
        members.sort(key=lambda image: (unit_hash("shuffle", config.shuffle_seed, image.item.name), image.item.name))
        first, shard, size = 0, [], 0
        for image in [*members, None]:
            takes = 0 if image is None else 1536 + -(-image.seen.size // 512) * 512
            full = (
                len(shard) == config.images_per_shard if config.images_per_shard else size + takes > config.shard_bytes
            )
            if shard and (full or image is None):
                plans.append((f"{split}-{sum(plan[0].startswith(split) for plan in plans):06d}.tar", first, shard))
                first, shard, size = first + len(shard), [], 0
            shard, size = [*shard, image], size + takes
    return plans


def plainly_split(image, images, config):
    if isinstance(config.splits, str):
        return image.item.split or "train"
    lowest = min(one.seen.sha256 for one in images if one.seen.pixels_sha256 == image.seen.pixels_sha256)
    place, end = int(lowest[:16], 16) / 2**64, 0.0
    for name, share in sorted(config.splits.items()):
        end += share
        if place < end:
            return name
    return max(config.splits)


def test_tars_are_reckoned_in_blocks():
    images = ImageTable.of([Item("a", (0,)), Item("b", (0,))], [checked(0, size=512), checked(1, size=513)])
    assert tar_bytes(images.table.column("size")).tolist() == [2048, 2560]
