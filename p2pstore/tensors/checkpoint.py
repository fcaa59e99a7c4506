"""Which files of an object hold its tensors: safetensors files, and the index of a checkpoint of several. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from p2pstore.errors import UsageError
from p2pstore.tensors.header import Header, HeaderFault, Tensor, read_json
from p2pstore.tensors.patterns import NamePatterns

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
CONFIG = "config.json"

MAX_INDEX_BYTES = 64 << 20
"""Those of models with a hundred thousand tensors have ten."""

MAX_CONFIG_BYTES = 1 << 20
"""Of the description of a model; it has some kilobytes."""


class Layout(NamedTuple):
    """Files by their numbers in the manifest: those of tensors, indexes, and descriptions of the model."""

    files: tuple[int, ...]
    indexes: tuple[int, ...] = ()
    configs: tuple[int, ...] = ()


Index = Mapping[str, int]
"""From a tensor's name to the number of the file that is said to hold it."""


def layout_of(paths: Sequence[str], within: str = "") -> Layout:
    """Where to look in an object with files at ``paths``; a single file has the empty path.

    ``within`` is a directory of the object, or a file. Without it that is the top, where tensors lie there, and
    otherwise all of it: some objects keep the same weights again, in another form, further down. Where an index lies
    beside tensors, only they count that it names. Raises ``UsageError`` where there are none.
    """
    if tuple(paths) == ("",):
        if within:
            raise UsageError(detail=f"the object is a single file, in which there is no {within!r}")
        return Layout((0,))
    below = within.strip("/")
    prefix = f"{below}/" if below else ""
    found: list[int] = []
    indexes: list[int] = []
    configs: list[int] = []
    for number, path in enumerate(paths):
        if path.startswith(prefix) or path == below:
            if path.endswith(SUFFIX):
                found.append(number)
            elif path.endswith(INDEX_SUFFIX):
                indexes.append(number)
        if path.rpartition("/")[2] == CONFIG:  # which tells of a file that was named, too
            configs.append(number)
    if not found:
        raise UsageError(detail=f"no file {'in ' + repr(below) if below else 'of the object'} ends in {SUFFIX!r}")
    top = [number for number in found if _directory(paths[number]) == below]
    files = top or found
    directories = {_directory(paths[number]) for number in files}
    return Layout(
        tuple(files),
        tuple(number for number in indexes if _directory(paths[number]) in directories),
        tuple(number for number in configs if _directory(paths[number]) in directories),
    )


def parse_index(data: bytes, path: str, paths: Sequence[str]) -> Index:
    """The index at ``path`` of an object with files at ``paths``. Raises ``HeaderFault``."""
    found = read_json(data)
    weights = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(each, str) for each in weights.values()):
        raise HeaderFault("it has no weight_map from names to files")
    directory = path.rpartition("/")[0]
    wanted = {file: f"{directory}/{file}" if directory else file for file in set(weights.values())}
    numbers = {known: number for number, known in enumerate(paths) if known in set(wanted.values())}
    for file, full in wanted.items():
        if full not in numbers or not file.endswith(SUFFIX):
            raise HeaderFault(f"it names {file[:80]!r}, and the object has no safetensors file of that name there")
    return {name: numbers[wanted[file]] for name, file in weights.items()}


def files_to_read(
    layout: Layout, paths: Sequence[str], indexes: Mapping[int, Index], wanted: NamePatterns
) -> tuple[int, ...]:
    """The files whose headers are needed: beside an index, those where it says that something wanted is."""
    indexed = {_directory(paths[number]) for number in indexes}
    found = {number for number in layout.files if _directory(paths[number]) not in indexed}
    for index in indexes.values():
        found.update(number for name, number in index.items() if wanted.takes(name))
    return tuple(sorted(found))


def chosen(
    headers: Mapping[int, Header], indexes: Mapping[int, Index], paths: Sequence[str], wanted: NamePatterns
) -> list[tuple[int, Tensor]]:
    """The wanted tensors with their files' numbers, in the order in which they lie.

    An index must not say of a header what is not so: ``HeaderFault`` is raised with its ``path``.
    """
    found = [(number, t) for number in sorted(headers) for t in headers[number].tensors if wanted.takes(t.name)]
    there = {(number, tensor.name) for number, tensor in found}
    for index_number, index in indexes.items():
        for name, number in index.items():
            if wanted.takes(name) and (number, name) not in there:
                detail = f"it says that tensor {name[:80]!r} is in {paths[number]!r}, and it is not"
                raise HeaderFault(detail, path=paths[index_number])
    return found


def without_doubles(
    found: Iterable[tuple[int, Tensor]], indexes: Mapping[int, Index], paths: Sequence[str]
) -> list[tuple[int, Tensor]]:
    """The same, each name once: where several files have it, an index decides. Raises ``UsageError``."""
    by_name: dict[str, list[tuple[int, Tensor]]] = {}
    for number, tensor in found:
        by_name.setdefault(tensor.name, []).append((number, tensor))
    taken = []
    for name, several in by_name.items():
        if len(several) > 1:
            said = {index[name] for index in indexes.values() if name in index}
            some = [pair for pair in several if pair[0] in said]
            if len(some) != 1:
                where = " and ".join(repr(paths[number]) for number, _ in several[:2])
                raise UsageError(detail=f"tensor {name!r} is in {where}; say with path= which of them is meant")
            several = some  # noqa: PLW2901 - the one that is meant
        taken.append(several[0])
    return sorted(taken, key=lambda pair: (pair[0], pair[1].begin, pair[1].end))


def config_of(path: str, configs: Collection[int], paths: Sequence[str]) -> int | None:
    """The number of the model's description beside a file; None where there is none."""
    return next((number for number in configs if _directory(paths[number]) == _directory(path)), None)


def _directory(path: str) -> str:
    return path.rpartition("/")[0]
