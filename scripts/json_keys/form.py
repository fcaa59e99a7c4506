"""Keys of what ``--json`` prints: how they are written down, and what of a document is not so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

NUMBER = (int, float)
TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "flag": (bool,),
    "integer": (int,),
    "number": NUMBER,
    "bytes": (int,),
    "bytes/s": NUMBER,
    "GB/s": NUMBER,
    "seconds": NUMBER,
    "µs": NUMBER,
    "time": NUMBER,
    "object": (dict,),
    "any": (object,),
}
"""What a value is, and in which unit. ``time`` is in seconds since 1970-01-01, UTC."""

ANY_NAME = "*"
"""In place of a key: of an object whose keys are names themselves, such as those of nodes."""


@dataclass(frozen=True)
class Key:
    """One key, of a value, or of a list of such; it may be ``null``; it may be missing where it is ``optional``."""

    type: str
    meaning: str
    listed: bool = False
    null: bool = False
    optional: bool = False
    inner: Shape | None = None


@dataclass(frozen=True)
class Shape:
    """The keys of an object. One with a ``title`` is described once, and named where it comes again."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    title: str = ""

    def __or__(self, other: Shape) -> Shape:
        return Shape({**self.keys, **other.keys})

    def without(self, *names: str) -> Shape:
        """The same, without some."""
        return Shape({name: key for name, key in self.keys.items() if name not in names})


def shape(text: str, title: str = "", /, **inner: Shape) -> Shape:
    """The shape that lines of ``KEY TYPE MEANING`` say.

    ``KEY?`` may be missing, ``TYPE?`` may be null, and ``[TYPE]`` is a list. Lines that are indented are keys of what
    the line above is; or ``inner`` has them, by the key.
    """
    lines = [line for line in text.strip("\n").splitlines() if line.strip()]
    return Shape(_keys(lines, inner), title)


def _keys(lines: list[str], inner: Mapping[str, Shape]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    while lines:
        line = lines.pop(0)
        below = []
        while lines and lines[0].startswith(" "):
            below.append(lines.pop(0).removeprefix("  "))
        name, kind, meaning = line.split(maxsplit=2)
        plain = kind.rstrip("?").strip("[]")
        assert plain in TYPES, line
        of = Shape(_keys(below, inner)) if below else inner.get(name.rstrip("?"))
        key = Key(plain, meaning, kind.startswith("["), kind.endswith("?"), name.endswith("?"), of)
        found[name.rstrip("?")] = key
    return found


def faults(document: object, shape: Shape, path: str = "") -> Iterator[str]:
    """What of a document is not as ``shape`` says: keys that are missing or not known, and values of other types."""
    if not isinstance(document, dict):
        yield f"{path or 'the document'} is {document!r}, and no object"
        return
    for name, value in document.items():
        key = shape.keys.get(name, shape.keys.get(ANY_NAME))
        at = f"{path}.{name}".lstrip(".")
        if key is None:
            yield f"{at} is not known"
        else:
            yield from _of_value(value, key, at)
    for name, key in shape.keys.items():
        if name not in document and not key.optional and name != ANY_NAME:
            yield f"{path}.{name} is missing".lstrip(".")


def _of_value(value: object, key: Key, at: str) -> Iterator[str]:
    if value is None and key.null:
        return
    if not key.listed:
        values = [(value, at)]
    elif isinstance(value, list):
        values = [(each, f"{at}[]") for each in value]
    else:
        yield f"{at} is {value!r}, and no list"
        return
    for each, where in values:
        if (isinstance(each, bool) and key.type not in {"flag", "any"}) or not isinstance(each, TYPES[key.type]):
            yield f"{where} is {each!r}, and no {key.type}"
        elif key.inner is not None:
            yield from faults(each, key.inner, where)


def paths(shape: Shape, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key with its path, as in ``files[].path``; of a shape with a title only what leads to it."""
    for name, key in shape.keys.items():
        path = f"{prefix}{name}"
        yield path, key
        if key.inner is not None and not key.inner.title:
            yield from paths(key.inner, f"{path}{'[]' if key.listed else ''}.")


def seen(documents: list[object], shape: Shape) -> set[str]:
    """The paths of ``paths`` that stand in any of the documents."""
    found = set()
    for path, _ in paths(shape):
        values = documents
        for part in path.replace("[]", ".[]").split("."):
            if part == "[]":
                values = [each for value in values if isinstance(value, list) for each in value]
            elif part == ANY_NAME:
                values = [each for value in values if isinstance(value, dict) for each in value.values()]
            else:
                values = [value[part] for value in values if isinstance(value, dict) and part in value]
        if values:
            found.add(path)
    return found
