"""LayerCAM."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor


def maps(context: CamContext) -> Tensor:
    """Weight each position of each channel by its own positive gradient (equations 5 and 6)."""
    return (context.gradients.relu() * context.activations).sum(1)


LAYERCAM = CamMethod(
    name="layercam",
    help="Each position weighted by its own positive gradient.",
    paper="Jiang et al. 2021, LayerCAM",
    maps=maps,
    needs_gradients=True,
)
