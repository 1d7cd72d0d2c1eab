"""Where a value lies in an answer: JSON pointers, dotted paths, and from a row up to what encloses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "nothing"})()
#: Stands at the end of a path for the entries of the list that is there.
END = "\0"
_PATH = re.compile(r"(?:\^(?P<up>[1-9])|(?P<root>\$))?(?P<rest>@|.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """One row's value, its key or position in what holds it, and the entry of the `*` before it."""

    value: Any
    key: str | int
    parent: Item | None


def segments(path: str) -> tuple[str, ...]:
    """The names along a path: `/a/b~1c` (RFC 6901) or `a.b`; none for the whole value."""
    if path.startswith("/"):
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    return tuple(path.split(".")) if path else ()


def found(value: Any, names: tuple[str, ...]) -> Any:
    """The value at a path, or MISSING."""
    for name in names:
        if isinstance(value, Mapping):
            value = value.get(name, MISSING)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def items(body: Any, names: tuple[str, ...]) -> Iterator[Item]:
    """Every entry that `names` leads to; each `*` goes through a list or through the values of an object.

    A path that does not end with `*` ends at a list, whose entries are meant. Raises LookupError with the
    path of what is no list or object; what is not there below a `*` holds no rows.
    """
    yield from _items(body, names if names[-1:] == ("*",) else (*names, END), None, ())


def one(body: Any, names: tuple[str, ...]) -> Iterator[Item]:
    """What a path leads to as the only row. Raises LookupError when nothing is there."""
    value = found(body, names)
    if value is MISSING or value is None:
        raise LookupError("/".join(("", *names)))
    yield Item(value, names[-1] if names else "", None)


def _items(value: Any, names: tuple[str, ...], parent: Item | None, at: tuple[str, ...]) -> Iterator[Item]:
    star = next(n for n, name in enumerate(names) if name in ("*", END))
    held = found(value, names[:star])
    at, rest = (*at, *names[:star]), names[star + 1 :]
    if isinstance(held, list):
        entries: Iterator[tuple[str | int, Any]] = iter(enumerate(held))
    elif isinstance(held, Mapping) and names[star] == "*":
        entries = iter(held.items())
    elif parent is not None and (held is MISSING or held is None):
        return
    else:
        raise LookupError("/".join(("", *at)))
    for key, entry in entries:
        item = Item(entry, key, parent)
        if rest:
            yield from _items(entry, rest, item, (*at, str(key)))
        else:
            yield item


@dataclass(frozen=True, slots=True)
class Reach:
    """A column's path: `amount.value` or `/amount/value` in the row, `^1/start` in what encloses it, `@` its
    key or position, `^1@` that of what encloses it, `$/currency` in the whole answer."""

    up: int
    root: bool
    key: bool
    names: tuple[str, ...]

    @classmethod
    def parse(cls, path: str) -> Reach:
        """Read a path."""
        match = _PATH.fullmatch(path)
        assert match is not None  # noqa: S101 - the pattern takes any text
        rest = match["rest"]
        return cls(
            int(match["up"] or 0), bool(match["root"]), rest == "@", () if rest == "@" else segments(rest)
        )

    @property
    def top(self) -> str | None:
        """The field of the row itself that is read."""
        return self.names[0] if self.names and not (self.up or self.root) else None

    def getter(self, body: Any) -> Callable[[Item], Any]:
        """What answers the value for an item of this body, MISSING where there is none."""
        names, up = self.names, self.up
        if self.root:
            constant = found(body, names)
            return lambda _: constant
        if self.key:
            return lambda item: _above(item, up).key
        if up == 0 and len(names) == 1:
            name = names[0]
            return lambda item: (
                item.value.get(name, MISSING) if isinstance(item.value, dict) else found(item.value, names)
            )
        return lambda item: found(_above(item, up).value, names)


def _above(item: Item, up: int) -> Item:
    for _ in range(up):
        if item.parent is None:
            return Item(MISSING, "", None)
        item = item.parent
    return item
