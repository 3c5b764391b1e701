"""The paper's numbers: parameters of every variant to the unit, and the compute of Table 6."""

import math

import pytest

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.flops import activation_bytes, forward_macs, num_parameters, train_flops_per_image
from vitpipe.stages.vit.shapes import parameter_shapes

# At 224 px with class token, learned 1-D positions and a linear head of 1000 classes. B and L equal torchvision's
# published num_params; g/14 and G/14 are big_vision's.
PARAMETERS = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "S/32": 22_878_952,
    "B/16": 86_567_656,
    "B/32": 88_224_232,
    "L/16": 304_326_632,
    "L/32": 306_535_400,
    "H/14": 632_045_800,
    "g/14": 1_012_611_432,
    "G/14": 1_844_440_680,
}
# Hybrids and ResNets likewise: equal to timm's models of these structures, see test_family_parity.py.
CONVOLUTIONAL = {
    "R50+B/16": 98_659_112,
    "R50+B/32": 110_945_832,
    "R50+L/16": 316_483_624,
    "R50+L/32": 328_994_856,
    "R26+S/32": 36_431_912,
    "R+Ti/16": 6_337_704,
    "R50x1": 25_549_352,
    "R50x2": 97_988_712,
    "R101x1": 44_541_480,
    "R152x1": 60_185_128,
    "R152x2": 236_335_208,
    "R200x3": 568_633_000,
}
# Forward GFLOPs at 224 px, 2 per multiply-add, no head.
GFLOPS = {
    "Ti/16": 2.51, "S/16": 9.20, "S/32": 2.29, "B/16": 35.13, "B/32": 8.82, "L/16": 123.1, "L/32": 30.75, "H/14": 334.6,
}  # fmt: skip
# Paper, Table 6: variant, epochs on JFT-300M, exaFLOPs.
TABLE_6 = [
    ("B/32", 7, 55),
    ("B/16", 7, 224),
    ("L/32", 7, 196),
    ("L/16", 7, 783),
    ("L/16", 14, 1567),
    ("H/14", 14, 4262),
]
TABLE_6_HYBRIDS = [
    ("R50+B/32", 7, 106),
    ("R50+B/16", 7, 274),
    ("R50+L/32", 7, 246),
    ("R50+L/16", 14, 1668),
]
TABLE_6_RESNETS = [
    ("R50x1", 7, 50),
    ("R50x2", 7, 199),
    ("R101x1", 7, 96),
    ("R152x1", 7, 141),
    ("R152x2", 7, 563),
    ("R152x2", 14, 1126),
    ("R200x3", 14, 3306),
]
JFT_IMAGES = 303e6


def at_224(variant: str, classes: int | None = 1000) -> ModelSettings:
    return ModelSettings(variant=variant, image_px=224, classes=classes)


@pytest.mark.parametrize(("variant", "count"), [*PARAMETERS.items(), *CONVOLUTIONAL.items()])
def test_parameter_counts_to_the_unit(variant: str, count: int) -> None:
    assert num_parameters(at_224(variant)) == count
    assert elements(at_224(variant)) == count


@pytest.mark.parametrize("pool", ["cls", "gap", "map"])
@pytest.mark.parametrize("position", ["learned1d", "learned2d", "relative", "sincos2d", "none"])
@pytest.mark.parametrize("representation", ["none", "width", 7])
def test_counting_equals_building(pool: str, position: str, representation: str | int) -> None:
    sizes = {"layers": 2, "width": 24, "mlp": 31, "heads": 3, "patch_px": 5}
    kind = {"pool": pool, "position": position, "representation": representation}
    settings = ModelSettings.model_validate({"variant": sizes, "image_px": 23, "classes": 6, **kind})
    assert num_parameters(settings) == elements(settings)


@pytest.mark.parametrize(("variant", "gflops"), GFLOPS.items())
def test_forward_flops(variant: str, gflops: float) -> None:
    assert 2 * forward_macs(at_224(variant, classes=None)) / 1e9 == pytest.approx(gflops, rel=3e-3)


@pytest.mark.parametrize(
    ("image_px", "variant", "gflops"), [(384, "L/16", 382), (512, "L/16", 724), (384, "H/14", 1007)]
)
def test_forward_flops_at_fine_tuning_sizes(image_px: int, variant: str, gflops: float) -> None:
    settings = ModelSettings(variant=variant, image_px=image_px, classes=None)
    assert 2 * forward_macs(settings) / 1e9 == pytest.approx(gflops, rel=3e-3)


@pytest.mark.parametrize(("variant", "epochs", "exaflops"), TABLE_6)
def test_table_6_exaflops(variant: str, epochs: int, exaflops: float) -> None:
    assert exaflops_of(variant, epochs) == pytest.approx(exaflops, rel=0.025)


@pytest.mark.parametrize(("variant", "epochs", "exaflops"), TABLE_6_HYBRIDS)
def test_table_6_exaflops_of_hybrids(variant: str, epochs: int, exaflops: float) -> None:
    assert exaflops_of(variant, epochs) == pytest.approx(exaflops, rel=0.02)


def test_table_6_gives_one_hybrid_more_in_half_the_epochs_than_in_all() -> None:
    """R50+L/16: 859 in 7 epochs, but 1668 in 14. Ours agrees with the longer run, and is 2.9 % below the shorter."""
    assert exaflops_of("R50+L/16", 7) / 859 == pytest.approx(0.971, abs=0.001)


@pytest.mark.parametrize(("variant", "epochs", "exaflops"), TABLE_6_RESNETS)
def test_table_6_exaflops_of_resnets(variant: str, epochs: int, exaflops: float) -> None:
    """All rows are 3.1 to 4.1 % below what the structure gives; the paper does not say what it left out."""
    assert exaflops_of(variant, epochs) / exaflops == pytest.approx(1.036, abs=0.006)


def test_plain_resnet_50_by_hand() -> None:
    """4.09e9 multiply-adds, as torchvision publishes for its ResNet-50 with the stride on the 3x3 convolutions too."""
    assert forward_macs(at_224("R50x1")) == pytest.approx(4.09e9, rel=1e-3)


def test_384_on_patch_14_drops_the_last_pixels() -> None:
    settings = ModelSettings(variant="H/14", image_px=384, classes=10)
    assert settings.grid == 27 and settings.tokens == 730


def exaflops_of(variant: str, epochs: int) -> float:
    return train_flops_per_image(at_224(variant)) * JFT_IMAGES * epochs / 1e18


@pytest.mark.parametrize("variant", ["B/16", "R26+S/32", "R50x1"])
def test_recomputing_blocks_keeps_less(variant: str) -> None:
    assert 0 < 2 * activation_bytes(at_224(variant), recompute=True) < activation_bytes(at_224(variant))


def elements(settings: ModelSettings) -> int:
    return sum(math.prod(shape) for shape in parameter_shapes(settings).values())
