"""Runs and morphology fused by gradient-boosted trees.

`fuse_runs` makes a fused run folder, `compute_features` only writes the features for other tools.
"""

from typing import TYPE_CHECKING

from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.fusing.features import compute_features
    from wbctool.fusing.options import BoostingOptions, FusionOptions
    from wbctool.fusing.run import fuse_runs

__all__ = ["BoostingOptions", "FusionOptions", "compute_features", "fuse_runs"]
__getattr__ = lazy_exports(
    __name__,
    {
        "BoostingOptions": "options",
        "FusionOptions": "options",
        "compute_features": "features",
        "fuse_runs": "run",
    },
)
