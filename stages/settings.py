"""What configs are made of: the base of every section, lengths of training, and where source data lies. No torch."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from vitpipe.stages.bounds import FewOrNone


class Settings(BaseModel):
    """Base of every config and resources section: frozen, finite, unknown keys refused, defaults validated.

    Each field has its sentence below it; `pipeline.spec.schema` reads them from the source, as importing need not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


GRAIN = 0.0001
"""The smallest part of a core or GPU that Ray counts."""


class TaskResources(Settings):
    """What one task of a fan-out gets. Changes only where and how fast."""

    cpus_per_task: float = Field(default=1, ge=GRAIN, le=4_096)
    """CPU cores of one task."""
    gpus_per_task: float | None = Field(default=None, ge=0, le=1_024)
    """GPUs of one task, fractions allowed; by default 1 where the cluster has GPUs, else 0. Trials and features of a
    model that needs little memory, and that are many or leave a GPU idle, take a half, a quarter or an eighth by
    default, so that several share a GPU."""
    max_failures: FewOrNone = 3
    """Times one task may be lost to its machine before it counts as failed."""

    @property
    def whole_cpus(self) -> int:
        """CPU cores of one task as a number of threads: at least one."""
        return max(1, int(self.cpus_per_task))

    @field_validator("gpus_per_task")
    @classmethod
    def _divides_a_gpu(cls, gpus: float | None) -> float | None:
        if gpus is not None and (0 < gpus < GRAIN or (gpus > 1 and gpus != int(gpus))):
            raise ValueError(f"a task has a part of one GPU, at least {GRAIN}, or whole ones, not {gpus:g}")
        return gpus

    def on_gpus(self, gpus: int, task_bytes: float, tasks: int, busy: float) -> Self:
        """Give each task a part of a GPU, where there are GPUs and nobody said how much.

        By the memory it takes, reckoned for a GPU of 16 GB, so that tasks which share one fit on any; half a GB of each
        goes to CUDA itself. And no less than the part of the time that it keeps a GPU `busy`, where so few `tasks` go
        at once that other GPUs would stand idle.
        """
        if not gpus or self.gpus_per_task is not None:
            return self
        least = min(busy, gpus / max(1, tasks))
        share = next((part for part in (0.125, 0.25, 0.5) if task_bytes + 0.5e9 <= part * 16e9 and least <= part), 1.0)
        return self.model_copy(update={"gpus_per_task": share})


@dataclass(frozen=True)
class Place:
    """Marks a field that says where source data lies: `root: Annotated[str, Place()]`.

    A relative path is made absolute where the command is typed. A local one stays out of the fingerprint: a folder may
    move, its content is what counts.
    """

    separator: str = ""
    """Between several places in one text, where the field takes them."""
    words: tuple[str, ...] = ()
    """Texts that are no places, but say something else."""
    content: bool = False
    """Whether it names a YAML file that is read with the spec: its content takes the place of its name."""


MOST = {"epochs": 1e6, "steps": 1e12, "images": 1e15}
"""The most of each unit: longer than any training, and whatever is computed from it stays a number."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([kM]?)\s*(epochs?|steps?|images?)")


@dataclass(frozen=True)
class Duration:
    """A length of training: `90 epochs`, `10k steps`, `300M images`."""

    amount: float
    unit: str  # one of MOST

    @classmethod
    def parse(cls, text: str) -> Self:
        """ValueError with the accepted forms for anything else, and for more than `MOST`."""
        match = _DURATION.fullmatch(text.strip())
        if not match:
            forms = "'90 epochs', '10k steps', '300M images'"
            raise ValueError(f"a duration is a number and a unit, like {forms}: {text!r}")
        number, scale, unit = match.groups()
        amount, units = float(number) * {"": 1, "k": 1e3, "M": 1e6}[scale], unit.rstrip("s") + "s"
        if amount > MOST[units]:
            raise ValueError(f"it should be at most {cls(MOST[units], units)}, not {text.strip()[:40]!r}")
        return cls(amount, units)

    def steps(self, batch_images: int, epoch_images: int) -> int:
        """Whole steps of `batch_images`; only the last partial batch of the run is dropped."""
        if self.unit == "steps":
            return int(self.amount)
        images = self.amount * (epoch_images if self.unit == "epochs" else 1)
        return int(images // batch_images)

    def __str__(self) -> str:
        amount = int(self.amount) if float(self.amount).is_integer() else self.amount  # exact: `parse` reads it back
        return f"{amount} {self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> "Duration":
            return value if isinstance(value, Duration) else cls.parse(value if isinstance(value, str) else repr(value))

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        most = "at most " + " or ".join(str(cls(amount, unit)) for unit, amount in MOST.items())
        examples = ["90 epochs", "10k steps"]
        return {"type": "string", "pattern": f"^{_DURATION.pattern}$", "$comment": most, "examples": examples}


def _some(length: Duration) -> Duration:
    if not length.amount:
        raise ValueError(f"it should be longer than nothing, not {length}")
    return length


def in_brief(error: ValidationError) -> str:
    """Say in one line what is wrong: `norm_eps 0.0: Input should be ...`, or a field's own check in its own words.

    Of a field that may be several things, what the others of them would have wanted is left out then.
    """
    found = error.errors()
    own = {one["loc"][:1] for one in found if one["type"] == "value_error"}
    told = [one for one in found if one["type"] == "value_error" or one["loc"][:1] not in own]
    return "; ".join(
        one["msg"].removeprefix("Value error, ")
        if one["type"] == "value_error"
        else " ".join((".".join(map(str, one["loc"])), f"{one['input']!r}: {one['msg']}")).strip()
        for one in told
    )


def micro_batch_of(batch_images: int, asked: int | None) -> int:
    """Images of one pass: as asked, or the largest divisor of the batch up to 64."""
    return asked or passes_of(batch_images, 64)[0]


def passes_of(batch_images: int, most: int) -> list[int]:
    """List the numbers of images, up to `most`, of which whole passes make a batch: the largest first."""
    return [size for size in range(min(most, batch_images), 0, -1) if batch_images % size == 0]


PositiveDuration = Annotated[Duration, AfterValidator(_some)]
"""The length of a run, or between two checkpoints: more than nothing."""
