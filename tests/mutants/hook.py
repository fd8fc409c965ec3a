"""A plugin for pytest (`-p tests.mutants.hook`) that gives this process one module with an edit in it.

`ZOTCTL_MUTANT` names the mutant. The file is not touched and nothing is cached, so that any number may run at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.mutants.mutant import Mutant
from tests.mutants.table import MUTANTS

VARIABLE = "ZOTCTL_MUTANT"


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(mutant.path))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self._mutant.apply(self.get_data(self.path).decode())
        return compile(source, self.path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        spec.loader = _Loader(self._mutant)
        return spec


if VARIABLE in os.environ:
    chosen = MUTANTS[os.environ[VARIABLE]]
    assert chosen.module not in sys.modules, f"{chosen.module} was imported before its edit"
    sys.meta_path.insert(0, Finder(chosen))
