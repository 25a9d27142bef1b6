"""The spatial attention of CBAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wbctool.errors import UsageProblem
from wbctool.explaining.method import CamContext, CamMethod, Target, Tensor

if TYPE_CHECKING:
    from timm.layers.cbam import CbamModule

    from wbctool.modeling.model_types import Model


def maps(context: CamContext) -> Tensor:
    """Return the gate, 0 to 1."""
    return context.activations[:, 0]


def find_gates(model: Model, layers: Sequence[str]) -> dict[str, Target]:
    """Find the spatial gates of the CBAM modules that are the given layers, or follow them; else of the last one."""
    from timm.layers.cbam import CbamModule

    from wbctool.explaining.layers import select_layers

    modules = {name: module for name, module in model.named_modules() if isinstance(module, CbamModule)}
    if not modules:
        raise UsageProblem(
            f"--method attention: {model.architecture.backbone} was trained without CBAM; "
            "train with --attention cbam, or give --method gradcam"
        )
    name_of = {name.replace("inner_attention.", ""): name for name in modules}  # by the layer before it
    wanted = [name_of.get(name.replace(".", "_"), name) for name in (select_layers(model, layers) if layers else ())]
    chosen = [name for name in wanted if name in modules]
    if layers and not chosen:
        raise UsageProblem(f"--layer {layers[0]}: has no CBAM; it is at {', '.join(list(modules)[-6:])}")
    return {name: _gate(modules[name]) for name in chosen or list(modules)[-1:]}


def _gate(cbam: CbamModule) -> Target:
    return Target(cbam.spatial.conv, lambda output: cbam.spatial.gate(output.detach().float()))


ATTENTION = CamMethod(
    name="attention",
    help="CBAM's spatial gate, for any class.",
    paper="Woo et al. 2018, CBAM, equation 3",
    maps=maps,
    depends_on_class=False,
    targets=find_gates,
    range_key="gate",
)
