"""Shape and type annotations are checked in every test.

Numba kernels live in modules named `kernels`; they are left alone, since Numba compiles the bare function.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import pytest
from jaxtyping import install_import_hook


class _PlainKernels(MetaPathFinder):
    def find_spec(self, fullname, path, target=None) -> ModuleSpec | None:
        if fullname.startswith("cupola.") and fullname.endswith(".kernels"):
            return PathFinder.find_spec(fullname, path, target)
        return None


install_import_hook("cupola", "beartype.beartype")
sys.meta_path.insert(0, _PlainKernels())

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared with real frames and parity numbers; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared (real frames and parity numbers) is not here")
    return SHARED
