"""Where the numbers of a source's classes get their names, and what where its files name them otherwise. No torch.

Files are united by name: each file's numbers mean what that file calls them. What cannot be united is refused with both
lists.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.classes import difference, look_alike, pairs_alike, same_to_the_eye, some_names
from vitpipe.stages.ingest.listing import Item, Items, Listing
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing, Label, is_number, sorted_classes

TOLD = 3
_NAMED = "give `class_names`, a file of all names in the order of the numbers, or ingest these files apart"


@dataclass(frozen=True)
class Vocabulary:
    """What one file says of classes."""

    file: str
    names: tuple[str, ...] = ()
    """What it calls its numbers."""
    labels: tuple[Label, ...] = ()
    """Those that occur, as far as they were looked at."""
    only_numbers: bool = False
    """Whether its labels can be nothing but numbers."""

    def unnamed(self, known: Iterable[str]) -> list[str]:
        """Numbers that occur and that nothing names; a text of digits is one unless a class is called so."""
        if self.names:
            return []
        found = {str(label) for label in self.labels if is_number(label)}
        texts = {label for label in self.labels if isinstance(label, str)}
        return list(sorted_classes(found - (texts & set(known))))

    @property
    def words(self) -> list[str]:
        """Names that occur and are no numbers, in a file that names none."""
        return [] if self.names else sorted(str(label) for label in self.labels if not is_number(label))


def joined(parts: Iterable[FileListing], fixed: Classes | None) -> Listing:
    """One listing of all files. `fixed` are the classes of the config.

    UsageError with both lists where a number has a name in one file and another or none in the next.
    """
    parts = list(parts)
    notes = [note for part in parts for note in part.notes]
    said = [Vocabulary(part.file, part.names, part.labels) for part in parts]
    classes, told = agreed(said, fixed)
    lists = {names: Classes.of(names) for names in dict.fromkeys(one.names for one in said if one.names)}
    places = fixed is not None or bool(lists)
    findings = tuple(sorted((one for part in parts for one in part.findings), key=lambda one: one.name))
    items = Items(item for part in parts for item in _numbered(part, lists.get(part.names), classes, places))
    return Listing(items.by_name(), classes.names, any(part.several for part in parts), (*notes, *told), findings)


def agreed(files: Sequence[Vocabulary], fixed: Classes | None) -> tuple[Classes, list[str]]:
    """The classes of all files together, and what a person should know of them. UsageError as `joined`."""
    listed = [one for one in files if one.names]
    for names, file in {one.names: one.file for one in reversed(listed)}.items():
        Classes.of(names, file)  # refuses a name that stands twice
    if fixed is not None:
        return _renamed(fixed, listed)
    if listed:
        return _united(files, listed)
    names = sorted_classes({str(label) for one in files for label in one.labels})
    return Classes.of(names), [*_renumbered(names), *_mixed(files), *odd_names(names)]


def odd_names(names: Sequence[str]) -> list[str]:
    """What a person should know of names that are nearly one. UsageError for two that are one to every eye."""
    if same := same_to_the_eye(names):
        do = "write both in one form and without unseen characters; `convmv --nfc` does the first for folders"
        raise UsageError("tell the classes apart", f"{look_alike(*same[0])}, and would be two classes", do)
    notes = []
    if strange := [name for name in names if not _is_text(name)]:
        notes.append(f"class names that are not UTF-8 are shown with their bytes: {some_names(strange)}; see `convmv`")
    near = pairs_alike(names)
    more = f", and {len(near) - TOLD} more pairs" if len(near) > TOLD else ""
    notes += [f"classes whose names are nearly one stay apart: {'; '.join(near[:TOLD])}{more}"] if near else []
    return notes


def _is_text(name: str) -> bool:
    """Whether a name, of a folder perhaps, is UTF-8."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def mixed_names(file: str, names: Sequence[str]) -> list[str]:
    """What a person should know where numbers stand among the names of one file."""
    numbers, words = [name for name in names if is_number(name)], [name for name in names if not is_number(name)]
    told = f"{file} has numbers beside names, and each is a class by itself: {some_names(numbers)}; {some_names(words)}"
    return [told] if numbers and words else []


def _united(files: Sequence[Vocabulary], listed: Sequence[Vocabulary]) -> tuple[Classes, list[str]]:
    """By name, in the order in which names first come; names of files without a list behind them."""
    lists = dict.fromkeys(one.names for one in listed)  # mostly one, in a thousand files
    union = list(dict.fromkeys(name for names in lists for name in names))
    for one in files:
        numbers = one.unnamed(union)
        if numbers or (one.only_numbers and not one.names):
            named, has = listed[0], f"the numbers {some_names(numbers)}" if numbers else "numbers"
            found = f"the file {named.file} names {len(named.names)} classes, {some_names(named.names)}; {one.file} has"
            raise UsageError("number the classes of a source's files", f"{found} {has} without names", _NAMED)
    first, others = listed[0], [one for one in listed if one.names != listed[0].names]
    notes = []
    if others:
        told = difference(first.names, others[0].names, (first.file, others[0].file))
        count = f"{len(others)} of {len(listed)} files"
        other = f"otherwise than {first.file}, as {others[0].file}: {told}"
        notes.append(f"{count} number the classes {other}; they are united by name")
    if new := sorted({word for one in files for word in one.words} - set(union)):
        notes.append(f"files without a list have {len(new)} names more: {some_names(new)}")
    names = (*union, *new)
    return Classes.of(names), notes + odd_names(names)


def _renamed(fixed: Classes, listed: Sequence[Vocabulary]) -> tuple[Classes, list[str]]:
    """The config's names, to which those of the files are matched by name or, where they are others, by number."""
    notes = odd_names(fixed.names)
    strange = [one for one in listed if not fixed.numbers.keys() >= set(one.names)]
    if not strange:
        if moved := [one for one in listed if fixed.names[: len(one.names)] != one.names]:
            notes.append(f"{moved[0].file} numbers the classes otherwise than the config: they are matched by name")
        return fixed, notes
    longest = max(listed, key=lambda one: len(one.names))
    for one in listed:
        if one.names != longest.names[: len(one.names)]:
            raise _clash(one, longest.file, longest.names, _NAMED.replace("all", "all the files'"))
    reached = longest.names[: len(fixed.names)]
    shared = {name: place for place, name in enumerate(longest.names) if name in fixed.numbers}
    renamed = not shared or len(longest.names) == len(fixed.names)  # else `z` of b, z is hardly the `a` of b, a, c
    if not renamed or any(fixed.numbers[name] != place for name, place in shared.items()):
        do = "leave `classes` and `class_names` out, or give the files' own names in the order that you want"
        raise _clash(longest, "the config", fixed.names, do)
    place = next(place for place, name in enumerate(reached) if name != fixed.names[place])
    theirs, ours = reached[place], fixed.names[place]
    notes.append(f"{strange[0].file} calls class {place} {theirs!r}, the config {ours!r}, which stands")
    return Classes(fixed.names, fixed.numbers | {name: place for place, name in enumerate(reached)}), notes


def _clash(one: Vocabulary, whose: str, names: Sequence[str], do: str) -> UsageError:
    found = f"their lists differ: {difference(one.names, names, (one.file, whose))}"
    return UsageError(f"number the classes of {one.file} as {whose} does", found, do)


def _mixed(files: Sequence[Vocabulary]) -> Iterator[str]:
    """Notes on numbers beside names in files without any list. UsageError where one file has numbers and one names.

    A number is then taken for a name, which is right for a source that calls its classes so.
    """
    numbers = next((one for one in files if one.unnamed(()) and not one.words), None)
    words = next((one for one in files if one.words and not one.unnamed(())), None)
    both = next((one for one in files if one.words and one.unnamed(())), None)
    if both is not None:
        yield from mixed_names(both.file, [*both.unnamed(()), *both.words])
    elif numbers is not None and words is not None:
        found = f"the file {numbers.file} has the numbers {some_names(numbers.unnamed(()))}, {words.file} the names "
        raise UsageError("number the classes of a source's files", found + some_names(words.words), _NAMED)


def _numbered(part: FileListing, own: Classes | None, classes: Classes, places: bool) -> Iterator[Item]:
    """Its images, labels as numbers of classes; set aside where one is none. `own` are the classes as the file has
    them, `places` says whether a number is one of them rather than a name.
    """
    numbers = [_number(label if places else str(label), own, classes) for label in part.labels]
    for image in part.images:
        found = [numbers[label] for label in image.labels]
        faults = [str(one) for one in found if isinstance(one, ValueError)]
        labels = () if faults else tuple(sorted({one for one in found if isinstance(one, int)}))
        yield image._replace(labels=labels, fault=faults[0] if faults else image.fault)


def _number(label: Label, own: Classes | None, classes: Classes) -> int | ValueError:
    """By the file's own name for it, where the file has names."""
    try:
        if own is None:
            return classes.number(label)
        name = own.names[own.number(label)]
        return classes.numbers[name] if name in classes.numbers else classes.unknown(label)
    except ValueError as error:
        return error


def _renumbered(names: Sequence[str]) -> list[str]:
    if not names or not all(map(is_number, names)) or int(names[-1]) == len(names) - 1:
        return []
    found = f"the labels 0 to {names[-1]} have {len(names)} classes that occur: they were numbered anew, in order"
    return [f"{found}; give `classes: {int(names[-1]) + 1}` to keep the numbers"]
