"""What a plan knows of an image's format and size: from a committed set, or by the names in a source."""

from dataclasses import replace
from pathlib import Path

import pytest
from class_tars import class_tars
from photos import encoded, ingest, photo_folder, picture, write

from vitpipe.stages.artifacts import PIXELS
from vitpipe.stages.costs.reading import parts_of
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.image_costs import ImageFacts, image_facts, image_work
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.sources.source_settings import SourceCount

PLAIN = AugmentSettings()


def counted(source: dict[str, str]) -> SourceCount:
    config = IngestConfig.model_validate({"source": source})
    found = config.source.count(config.splits)
    assert not isinstance(found, str)
    return found


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_committed_set_says_its_format_and_its_pixels(tmp_path: Path, form: str) -> None:
    root = photo_folder(tmp_path / "photos", form=form)
    source = {"kind": "folder", "root": str(root)}
    shards = ingest(tmp_path, {"source": source})
    facts = image_facts(shards)
    assert facts == ImageFacts(((form.lower(), 1.0),), shards.image_bytes / 24, 20 * 16)
    assert image_work(PLAIN, shards, 224).megapixels(form.lower()) == pytest.approx(20 * 16 / 1e6)
    planned = counted(source)
    assert parts_of(planned.formats) == ((form.lower(), 1.0),)


def test_a_mixture_takes_as_long_as_its_parts(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "photos")
    for number in range(9):
        write(root / f"class-0/{number + 100}.jpg", encoded(picture(number + 100), "JPEG"))
    config = {"source": {"kind": "folder", "root": str(root)}}
    shards = ingest(tmp_path, config)
    assert shards.metrics["images_png"] == 24 and shards.metrics["images_jpeg"] == 9
    assert image_facts(shards).formats == (("jpeg", 9 / 33), ("png", 24 / 33))
    parts = [replace(image_work(PLAIN, shards, 224), formats=((form, 1.0),)).milliseconds() for form in ("jpeg", "png")]
    assert image_work(PLAIN, shards, 224).milliseconds() == pytest.approx((9 * parts[0] + 24 * parts[1]) / 33)
    assert parts_of(counted(config["source"]).formats) == image_facts(shards).formats, "the names say the same"


def test_a_set_of_an_earlier_version_is_taken_as_before(tmp_path: Path) -> None:
    shards = ingest(tmp_path, {"source": {"kind": "folder", "root": str(photo_folder(tmp_path / "photos"))}})
    older = shards.model_copy(update={"metrics": {"images": 24.0}})
    assert PIXELS in shards.metrics and image_facts(older) == ImageFacts(bytes=shards.image_bytes / 24)
    assert image_work(PLAIN, older, 224).megapixels("jpeg") > 20 * 16 / 1e6, "by its bytes"
    assert image_facts(None) == ImageFacts()


def test_names_in_tars_say_the_format_before_anything_is_read(tmp_path: Path) -> None:
    class_tars(photo_folder(tmp_path / "photos", form="WEBP"), tmp_path / "tars")
    source = {"kind": "class_tars", "urls": f"{tmp_path}/tars/*.tar"}
    planned = counted(source)
    assert (planned.images, parts_of(planned.formats)) == (24, (("webp", 1.0),))


def test_benchmarks_that_are_arrays_become_png() -> None:
    for name, form in (("cifar10", "png"), ("vtab-clevr-count", "png"), ("imagenet", "jpeg")):
        found = counted({"kind": "benchmark", "name": name, "root": "/nowhere"})
        assert parts_of(found.formats) == ((form, 1.0),)
