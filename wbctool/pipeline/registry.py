"""Registries: an entry is declared in one module of a package, and found there by its name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, Protocol, TypeVar

from wbctool.errors import UsageProblem


class Entry(Protocol):
    """What a registry holds: something with a name and one line of help."""

    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """The entries that the modules of a package declare as constants, in alphabetical order.

    To add an entry is to add a module. Help imports all of them, so these modules import torch, OpenCV
    and the like inside their functions only.

    Args:
        package: full name of the package, such as `wbctool.training.losses`.
        kind: class of the entries.
        what: what an entry is called in errors, such as `loss`.
    """

    def __init__(self, package: str, kind: type[E], what: str) -> None:
        self._package, self._kind, self._what = package, kind, what
        self._entries: dict[str, E] = {}
        self._paths: list[str] = []

    def _found(self) -> dict[str, E]:
        paths = list(import_module(self._package).__path__)
        if paths != self._paths:
            modules = [import_module(f"{self._package}.{found.name}") for found in iter_modules(paths)]
            entries = [value for module in modules for value in vars(module).values() if isinstance(value, self._kind)]
            self._entries = {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}
            self._paths = paths
        return self._entries

    def __iter__(self) -> Iterator[E]:
        return iter(self._found().values())

    def __contains__(self, name: object) -> bool:
        return name in self._found()

    def names(self) -> list[str]:
        """The names of all entries."""
        return list(self._found())

    def get(self, name: str, option: str = "") -> E:
        """The entry of a name.

        Args:
            name: of the entry.
            option: the option that it was given to, for the error.

        Raises:
            UsageProblem: no entry has that name.
        """
        try:
            return self._found()[name]
        except KeyError:
            where = f"{option} {name}".strip()
            raise UsageProblem(f"{where}: unknown {self._what}; choose from {', '.join(self.names())}") from None
