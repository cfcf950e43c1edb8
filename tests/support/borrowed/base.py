"""How the tables of this package are written: a reason, and the names that it is about."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Name:
    """One name, and what must be true of it besides that it exists.

    `path`: `module:attribute.of.it`, or a module alone.
    `takes`: its parameters without `self`, in order. A method that we override must have these and
    no others. With `...` at the end, which a call of ours needs, there may be others.
    `says`: text in its source, white space aside, for example the call of a method that we
    override.
    `holds`: a question that the thing itself must answer with True.
    """

    path: str
    takes: str | None = None
    says: str = ""
    holds: Callable[[Any], bool] | None = None

    def fault(self) -> str:
        """What is not as we need it, in words; empty if all is."""
        module, _, attributes = self.path.partition(":")
        try:
            thing: Any = import_module(module)
            for attribute in filter(None, attributes.split(".")):
                thing = getattr(thing, attribute)
        except (ImportError, AttributeError) as error:
            return f"is not there ({error})"
        if self.takes is not None and (fault := _other_parameters(thing, self.takes.split())):
            return fault
        if self.says and _packed(self.says) not in _packed(_source(thing)):
            return f"does not say `{self.says}` in its source"
        if self.holds is not None and not self.holds(thing):
            return f"is {thing!r}, of which something we rely on is not true"
        return ""


@dataclass(frozen=True, slots=True)
class Borrowed:
    """Names of one library (as its package is called) that one thing of ours rests on.

    `why`: a sentence that says what breaks without them.
    """

    library: str
    used_in: str
    why: str
    names: list[Name]


def _other_parameters(thing: Any, wanted: list[str]) -> str:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(thing).parameters.values()
    found = [each.name for each in parameters if each.kind not in variadic and each.name != "self"]
    if wanted[-1:] != ["..."]:
        same = found == wanted
    else:
        same = [name for name in found if name in wanted] == wanted[:-1]
    return "" if same else f"takes ({', '.join(found)}) and not ({', '.join(wanted)})"


def _source(thing: Any) -> str:
    behind: Any = thing.fget if isinstance(thing, property) else thing
    return inspect.getsource(behind)


def _packed(source: str) -> str:
    return "".join(source.split())
