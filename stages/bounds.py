"""The numbers that configs are made of, each with the bounds of what it means. Knows no config.

A bound stands where beyond it nothing could be meant, or nothing would run: far from all that anybody trained, and near
enough that what is computed from any two fields together stays a number. A number without bounds is a mistake that a
test finds. Not a number and infinity are refused by `settings.Settings`.
"""

from typing import Annotated

from pydantic import Field

Side = Annotated[int, Field(ge=1, le=16_384)]
"""Pixels along a side: of an image that a model sees, or of a patch. Images of more than 50 megapixels are refused."""
Border = Annotated[int, Field(ge=1, le=1_024)]
"""Pixels around an image, out of which it is cut again."""
BatchImages = Annotated[int, Field(ge=1, le=16_777_216)]
"""Images of one step, or of one pass: 2^24, all of ImageNet-21k at once."""
Images = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
"""Images of a set, or of a part of one: a trillion."""
ImagesOrNone = Annotated[int, Field(ge=0, le=1_000_000_000_000)]
Classes = Annotated[int, Field(ge=0, le=10_000_000)]
Layers = Annotated[int, Field(ge=1, le=1_000)]
"""Encoder blocks; each is counted when a plan is made."""
Width = Annotated[int, Field(ge=1, le=262_144)]
"""Size of a hidden layer; also a number of attention heads, of which there are no more."""
Registers = Annotated[int, Field(ge=0, le=1_024)]
"""Tokens beside those of patches."""
LayerScale = Annotated[float, Field(ge=1e-12, le=1_000)]
"""What a branch is multiplied by at first."""
RopeBase = Annotated[float, Field(gt=1, le=1e12)]
"""Ratio of the longest wave of rotary positions to the shortest: with 1 all would be one."""
Few = Annotated[int, Field(ge=1, le=1_000_000)]
"""Things that are made, kept or shown one by one."""
FewOrNone = Annotated[int, Field(ge=0, le=1_000_000)]
Step = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1_000_000_000_000_000)]
"""A petabyte."""
Workers = Annotated[int, Field(ge=1, le=1_048_576)]
Cores = Annotated[int, Field(ge=1, le=4_096)]
"""CPU cores, or threads, of one machine."""

AnySeed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""A seed that is hashed."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A seed that numpy takes as it is: no negative one."""

Rate = Annotated[float, Field(gt=0, le=1e30)]
"""A learning rate that fp32 holds, whatever it is multiplied by. One that diverges is an outcome, not a mistake."""
RateOrNone = Annotated[float, Field(ge=0, le=1e30)]
Penalty = Annotated[float, Field(ge=1e-12, le=1e12)]
"""On squared weights; 2^-10 and 2^30 are usual ends of a sweep, and double precision sees no smaller one."""
Share = Annotated[float, Field(gt=0, le=1)]
Proportion = Annotated[float, Field(gt=0, le=1e12)]
"""Share of a set in a mixture: only the ratio to the others' counts."""
Concentration = Annotated[float, Field(ge=0, le=1_000)]
"""Alpha of a Beta distribution, 0 for none; at 1000 all draws are a half."""
Epsilon = Annotated[float, Field(ge=1e-30, le=1)]
"""What keeps a division by a small number bounded, in fp32 too."""
