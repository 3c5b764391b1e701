"""Embedded data: characters without digits, and true digits."""

import unicodedata

import numpy as np
import pytest
from photos import contents, indexes, ingest
from PIL import Image
from sklearn.datasets import load_digits

from vitpipe.infra.errors import UsageError
from vitpipe.stages.estimates import Known
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.sources.glyph_bitmaps import draw_bitmap
from vitpipe.stages.ingest.sources.glyph_classes import (
    FONTS,
    all_glyphs,
    choose_glyphs,
    font_path,
    is_digit_like,
    outlines,
)
from vitpipe.stages.ingest.sources.glyph_drawing import draw
from vitpipe.stages.ingest.sources.glyphs import SURE_CLASSES, GlyphsSource

GLYPHS = {"kind": "glyphs", "classes": 12, "images_per_class": 6, "image_px": 32}


def test_no_class_is_a_digit_or_is_drawn_like_one():
    classes = {glyph.codepoint: glyph for glyph in all_glyphs()}
    assert len(classes) > 1500
    for codepoint in classes:
        for char in unicodedata.normalize("NFKD", chr(codepoint)):
            assert not unicodedata.category(char).startswith("N") and not char.isdigit()
    digits = {
        (font, outline)
        for font in FONTS
        for codepoint, outline in outlines(font)
        if unicodedata.category(chr(codepoint)) == "Nd"
    }
    drawn = {(font, outline) for font in FONTS for codepoint, outline in outlines(font) if codepoint in classes}
    assert digits and not digits & drawn


@pytest.mark.parametrize("char", "0٣३²½Ⅳ①㋀🄀")
def test_digit_like_characters_are_known(char):
    assert is_digit_like(ord(char))


@pytest.mark.parametrize("char", "AЖאلᐃ")
def test_letters_are_not(char):
    assert not is_digit_like(ord(char))


def test_characters_drawn_alike_are_one_class():
    codepoints = {glyph.codepoint for glyph in all_glyphs()}
    for alike in ("AΑА", "OΟО", "HΗН"):
        assert sum(ord(char) in codepoints for char in alike) == 1
    assert ord("З") not in codepoints  # DejaVu Sans Mono draws it as its 3


def test_fonts_are_real_ones_and_installed():
    assert all(font.startswith(("DejaVu", "STIXGeneral")) for font in FONTS)
    assert all(font_path(font).is_file() for font in FONTS)


def test_every_class_is_drawn_differently_each_time_and_never_blank():
    for glyph in choose_glyphs(40, seed=3):
        images = [draw(glyph, 32, 0, number) for number in range(8)]
        assert len({image.tobytes() for image in images}) == 8
        blurred = [np.asarray(Image.fromarray(image).reduce(2), dtype=float) for image in images]
        assert all(image.max() - image.min() > 30 for image in blurred)  # noise alone averages out


def test_bitmaps_fill_their_frame_in_the_levels_of_the_digits():
    levels = {round(level * 255 / 16) for level in range(17)}
    for glyph in choose_glyphs(40, seed=3):
        images = [draw_bitmap(glyph, 8, 0, number) for number in range(8)]
        assert len({image.tobytes() for image in images}) == 8
        for image in images:
            assert set(image.ravel().tolist()) <= levels and image.max() > 100
            full = [image[edge].any() for edge in (0, -1)], [image[:, edge].any() for edge in (0, -1)]
            assert all(full[0]) or all(full[1]), "the larger side reaches both edges"


def test_a_style_is_another_source_and_the_default_is_the_old_one():
    item = GlyphsSource.model_validate(GLYPHS).open({}).listing().items[17]
    old, grey, bitmap = (
        GlyphsSource.model_validate({**GLYPHS, **more}).open({}).read(item)
        for more in ({}, {"style": "grey"}, {"style": "bitmap"})
    )
    assert old == grey != bitmap and decode(bitmap).shape == (32, 32, 3)


def test_an_image_is_a_function_of_seed_class_and_number():
    source = GlyphsSource.model_validate(GLYPHS).open({})
    item = source.listing().items[17]
    assert source.read(item) == GlyphsSource.model_validate(GLYPHS).open({}).read(item)
    other = GlyphsSource.model_validate({**GLYPHS, "seed": 1}).open({})
    assert source.read(item) != other.read(item)
    assert decode(source.read(item)).shape == (32, 32, 3)


def test_classes_are_drawn_by_seed_and_bounded():
    assert choose_glyphs(20, 0) != choose_glyphs(20, 1)
    assert set(choose_glyphs(20, 0)) < set(choose_glyphs(50, 0))
    with pytest.raises(UsageError, match=r"render 5000 classes.*the fonts have \d+"):
        choose_glyphs(5000, 0)


def test_more_classes_than_the_fonts_have_are_refused_at_plan():
    def planned(classes):
        source = {"kind": "glyphs", "classes": classes, "images_per_class": 2, "image_px": 16}
        return estimate(IngestConfig.model_validate({"source": source}), IngestResources(), {}, Known())

    most = len(all_glyphs())
    assert most > SURE_CLASSES and planned(most).images == 2 * most
    with pytest.raises(UsageError, match=rf"render {most + 1} classes of glyphs: the fonts have {most}"):
        planned(most + 1)


def test_glyphs_are_ingested_alike_with_and_without_the_spool(tmp_path, monkeypatch):
    config = {"source": GLYPHS, "images_per_shard": 30}
    shards = ingest(tmp_path, config)
    assert shards.splits == {"train": 72} and shards.num_classes == 12
    assert load_manifest(shards).classes[0].startswith("U+")
    monkeypatch.setattr("vitpipe.stages.ingest.look.spool.Spool.find", lambda *args: None)
    assert contents(ingest(tmp_path, config, node="other")) == contents(shards)
    monkeypatch.setattr("vitpipe.stages.ingest.look.spool.Spool.find", lambda *args: b"torn")
    assert contents(ingest(tmp_path, config, node="torn")) == contents(shards)


def test_digits_are_true_to_the_pixel_in_fixed_splits(tmp_path):
    shards = ingest(tmp_path, {"source": {"kind": "digits"}})
    assert sum(shards.splits.values()) == 1797 and 330 < shards.splits["test"] < 390
    assert load_manifest(shards).classes == tuple("0123456789")
    bunch = load_digits()
    split = Split(shards, "test", tmp_path / "cache")
    (index,) = indexes(split)
    for number in range(0, split.num_images, 20):
        original = int(index.source[number])
        pixels = split.pixels(number)
        assert (pixels[:, :, 1] == np.rint(bunch.images[original] * 255 / 16)).all()
        assert split.labels[number] == bunch.target[original]
