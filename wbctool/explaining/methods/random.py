"""Random maps: the baseline that a real map must beat."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor


def maps(context: CamContext) -> Tensor:
    """Draw uniform values of the layer's size, seeded by the pixels of each image."""
    import hashlib

    import numpy as np
    import torch

    shape = tuple(context.activations.shape[2:])
    drawn = []
    for image in context.images.to(torch.uint8).cpu().numpy():
        seed = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little")
        drawn.append(np.random.default_rng(seed).random(shape, dtype=np.float32))
    return torch.from_numpy(np.stack(drawn)).to(context.images.device)


RANDOM = CamMethod(
    name="random",
    help="Random values: the baseline.",
    maps=maps,
    depends_on_class=False,
)
