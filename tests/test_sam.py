"""Segment Anything: how its masks are sorted, errors without weights, and the whole path."""

from functools import partial

import cv2
import numpy as np
import pytest

from wbctool.drawing import draw_field
from wbctool.imaging.files import read_image
from wbctool.segmentation import find_objects
from wbctool.segmentation.sam import load, sort_masks


def dice(a, b):
    return 2 * (a & b).sum(dtype=int) / max(1, a.sum(dtype=int) + b.sum(dtype=int))


def masks_of(objects, shape):
    """The masks of all objects, of parts of them, of the background and of the whole image, in random order."""
    masks = [region.to_mask(shape) for cell in objects.cells for region in cell]
    masks += [region.to_mask(shape) for region in [*objects.platelets, *objects.red_cells]]
    background = 1 - np.bitwise_or.reduce(masks)
    parts = [cv2.erode(mask, np.ones((11, 11), np.uint8)) for mask in masks]
    every = [*masks, *[part for part in parts if part.any()], background, np.ones(shape, np.uint8)]
    return [every[index] for index in np.random.default_rng(0).permutation(len(every))]


def are_found(wanted, regions, shape):
    drawn = [region.to_mask(shape) for region in regions]
    return [max((dice(one.to_mask(shape), other) for other in drawn), default=0.0) > 0.85 for one in wanted]


@pytest.mark.data
def test_masks_of_real_fields_are_sorted_by_colour_and_size(data):
    white, red, platelets, counts = [], [], [], []
    files = sorted(path for path in (data / "pbc").glob("*/*.jpg") if not path.name.startswith("."))[::60]
    for path in files:
        image = read_image(path)
        shape = image.shape[:2]
        truth = find_objects(image, "stain")
        objects = sort_masks(image, masks_of(truth, shape))
        white += are_found([whole for whole, _ in truth.cells], [whole for whole, _ in objects.cells], shape)
        whole_red = [region for region in truth.red_cells if not region.overlapped and region.area > 900]
        red += are_found(whole_red, objects.red_cells, shape)
        platelets += are_found(truth.platelets, objects.platelets, shape)
        counts.append((len(objects.cells), len(truth.cells)))
    assert np.mean(white) >= 0.95
    assert np.mean(red) >= 0.9
    assert np.mean(platelets) >= 0.7
    assert sum(a for a, _ in counts) == sum(b for _, b in counts)


def test_masks_of_a_drawn_field_are_sorted_and_the_nucleus_is_found_within():
    image, truth = draw_field("monocyte", np.random.default_rng(5), size=240)
    shape = image.shape[:2]
    objects = sort_masks(image, masks_of(truth, shape))
    assert len(objects.cells) == 1
    whole, nucleus = objects.cells[0]
    assert dice(whole.to_mask(shape), truth.cells[0][0].to_mask(shape)) > 0.9
    assert dice(nucleus.to_mask(shape), truth.cells[0][1].to_mask(shape)) > 0.85
    assert sort_masks(image, []).cells == []


@pytest.fixture
def tiny_sam(monkeypatch):
    """The package's own classes, small, with random weights, as its `vit_b`."""
    import segment_anything
    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    def build(checkpoint=None):
        assert checkpoint is None  # it would be loaded as a pickle
        torch.manual_seed(0)
        sam = Sam(
            ImageEncoderViT(
                depth=1, embed_dim=16, img_size=256, mlp_ratio=1, num_heads=1, patch_size=16, qkv_bias=True,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, global_attn_indexes=(0,),
                window_size=14, out_chans=16,
            ),
            PromptEncoder(embed_dim=16, image_embedding_size=(16, 16), input_image_size=(256, 256), mask_in_chans=4),
            MaskDecoder(
                num_multimask_outputs=3, transformer=TwoWayTransformer(1, 16, 1, 16), transformer_dim=16,
                iou_head_depth=2, iou_head_hidden_dim=16,
            ),
        )  # fmt: skip
        torch.nn.init.constant_(sam.mask_decoder.iou_prediction_head.layers[-1].bias, 1.0)  # confident of every mask
        return sam

    for name in ("vit_b", "vit_h"):
        monkeypatch.setitem(segment_anything.sam_model_registry, name, build)
    load.cache_clear()
    yield build
    load.cache_clear()


def test_the_whole_path_with_a_small_model(tiny_sam, cli, tmp_path):
    import torch

    torch.save(tiny_sam().state_dict(), tmp_path / "sam.pth")
    (tmp_path / "in").mkdir()
    for number in range(2):
        image, _ = draw_field("neutrophil", np.random.default_rng(number))
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), image[..., ::-1])
    words = ("segment", tmp_path / "in", "--method", "sam", "--sam-checkpoint", tmp_path / "sam.pth")
    words += ("--sam-points", 4, "--device", "cpu")
    done = cli(*words, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert [record["method"] for record in done.records] == ["sam", "sam"]
    again = cli(*words, "-o", tmp_path / "again")
    assert [r["cells"] for r in again.records] == [r["cells"] for r in done.records]
    for name in ("0.png", "1.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_masks_come_in_smaller_batches_where_memory_does_not_suffice(tiny_sam, monkeypatch):
    import torch

    from wbctool.errors import DeviceError
    from wbctool.segmentation import sam

    tried = []

    class Scarce:
        def __init__(self, model, points_per_side, points_per_batch):
            self.batch = points_per_batch

        def generate(self, image):
            tried.append(self.batch)
            if self.batch > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return [{"segmentation": np.ones(image.shape[:2], bool)}]

    monkeypatch.setattr("segment_anything.SamAutomaticMaskGenerator", Scarce)
    limit = 16
    assert len(sam.automatic_masks(None, np.zeros((4, 5, 3), np.uint8), 8)) == 1
    assert tried == [64, 32, 16]
    limit = 0
    with pytest.raises(DeviceError, match="not enough GPU memory"):
        sam.automatic_masks(None, np.zeros((4, 5, 3), np.uint8), 8)


def test_without_the_right_weights_it_ends_with_3_before_any_work(tiny_sam, cli, tmp_path):
    import pickle

    import torch

    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 9, 3), 200, np.uint8))
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "pickled.pth").write_bytes(pickle.dumps(np.zeros(3)))
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    state = tiny_sam().state_dict()
    extra = {key.replace("blocks.0.", f"blocks.{n}."): value for n in range(24) for key, value in state.items()}
    torch.save(extra, tmp_path / "large.pth")
    words = ("segment", tmp_path / "a.png", "-o", tmp_path / "out", "--method", "sam")
    for given, message in (
        ((), "needs --sam-checkpoint FILE; download"),
        (("--sam-checkpoint", tmp_path / "nothing.pth"), "no such file; download"),
        (("--sam-checkpoint", tmp_path / "text.pth"), "no SAM checkpoint"),
        (("--sam-checkpoint", tmp_path / "pickled.pth"), "no SAM checkpoint"),
        (("--sam-checkpoint", tmp_path / "other.pth"), "no checkpoint of SAM vit_b; download"),
        (("--sam-checkpoint", tmp_path / "list.pth"), "no checkpoint of SAM vit_b; download"),
        (("--sam-checkpoint", tmp_path / "large.pth"), "no checkpoint of SAM vit_b; it is for --sam-model vit_l"),
    ):
        done = cli(*words, *given)
        assert (done.code, done.out, len(done.err.splitlines())) == (3, "", 1), done.err
        assert message in done.err
    assert not (tmp_path / "out").exists()
    done = cli(*words, "--sam-checkpoint", tmp_path / "text.pth", "--sam-model", "vit_x")
    assert (done.code, "choose from vit_b, vit_l, vit_h" in done.err) == (2, True)
    assert "is not for --method unet" in cli("segment", tmp_path, "-o", tmp_path / "o", "--sam-model", "vit_b").err
