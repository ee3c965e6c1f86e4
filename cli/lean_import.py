"""LanceDB without its client for remote catalogs, whose 400 request models take longer to import than all the rest.

A gallery is a folder, so the command never speaks to one. Only the command does without: whoever imports Modiste's
packages may use LanceDB in other ways too.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LEFT_OUT = "lance_namespace_urllib3_client"


class LeftOut(MetaPathFinder, Loader):
    """Finds modules of that package empty, with whatever name is imported from them as a class that cannot be made."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """An empty module for a name of the package."""
        is_of_it = fullname.partition(".")[0] == _LEFT_OUT
        return ModuleSpec(fullname, self, is_package=True) if is_of_it else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The empty module."""
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class _Empty(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Unmade,), {"__module__": self.__name__})


class _Unmade:
    def __init__(self, *_: object, **__: object) -> None:
        raise RuntimeError(f"The modiste command leaves {_LEFT_OUT} out, and {type(self).__name__} is of it.")


def leave_out_remote_catalogs() -> None:
    """Has LanceDB imported without it, where it is not imported yet."""
    if _LEFT_OUT not in sys.modules:
        sys.meta_path.insert(0, LeftOut())
