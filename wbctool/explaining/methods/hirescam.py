"""HiResCAM."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor


def maps(context: CamContext) -> Tensor:
    """Weight each position of each channel by its own gradient, whatever its sign (equation 5)."""
    return (context.gradients * context.activations).sum(1)


HIRESCAM = CamMethod(
    name="hirescam",
    help="Each position weighted by its own gradient.",
    paper="Draelos and Carin 2020, HiResCAM",
    maps=maps,
    needs_gradients=True,
)
