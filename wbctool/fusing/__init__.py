"""Runs and morphology fused by gradient-boosted trees.

`fuse_runs` makes a fused run folder, `compute_features` only writes the features for other tools.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wbctool.fusing.features import compute_features
    from wbctool.fusing.options import BoostingOptions, FusionOptions
    from wbctool.fusing.run import fuse_runs

__all__ = ["BoostingOptions", "FusionOptions", "compute_features", "fuse_runs"]
_MODULES = {"BoostingOptions": "options", "FusionOptions": "options", "compute_features": "features"}


def __getattr__(name: str) -> Any:
    """Import what is exported when it is first used: options alone need neither numpy nor torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'run')}"), name)
