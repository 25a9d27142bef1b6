"""Is the device kept busy? Images per second in training against the same model fed with ready tensors.

    python tests/benchmarks/feed.py                          # mobilenetv2_100 on the CPU
    python tests/benchmarks/feed.py --backbone resnet50      # on a GPU where there is one

PBC fields at 224. All are run in turn, several times, and the medians compared: `ready` is the bare loop
(forward, loss, backward, optimiser) over one batch that lies on the device; `flips` and `full` are `wbctool
train` with that augmentation, everything between two epochs included; `timm` is its training script's
defaults: its dataset, loader and augmentation with four workers, float32, after the first epoch.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from figures import figure

HERE = Path(__file__).resolve()
DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", HERE.parents[3] / "shared" / "data"))
CLASSES = 8


def samples(count):
    folders = sorted(path for path in (DATA / "pbc").iterdir() if path.is_dir())
    images = []
    for number, folder in enumerate(folders[:CLASSES]):
        images += [(str(p), number) for p in sorted(folder.glob("*.jpg"))[: count // CLASSES] if p.stem[0] != "."]
    return images


class Ours:
    """`wbctool train` on decoded images, an epoch at a time."""

    def __init__(self, options, augment, device, folder):
        import numpy as np

        from wbctool.device import pick_precision
        from wbctool.modeling.architecture import Architecture
        from wbctool.modeling.classifier import Classifier
        from wbctool.training.feed import DataFeed, Samples
        from wbctool.training.images import ImageStore
        from wbctool.training.loop import Trainer
        from wbctool.training.losses import make_objective
        from wbctool.training.processes import Processes
        from wbctool.training.recipe import Recipe

        items = samples(options.images)
        names = tuple("abcdefgh")
        precision = pick_precision("auto", device)
        recipe = Recipe(
            epochs=1, frozen_epochs=0, batch_size=options.batch_size, augment=augment, precision=precision, patience=0
        )
        images = ImageStore([path for path, _ in items], 224, folder / "pixels.npy", quiet=True)
        targets = torch.tensor([number for _, number in items])
        self.model = Classifier(Architecture(options.backbone, names)).to(device, memory_format=torch.channels_last)
        objective = make_objective(recipe, names, torch.bincount(targets))
        empty = Samples(np.zeros(0, int), torch.zeros(0, dtype=torch.int64))
        feed = DataFeed(images, Samples(np.arange(len(items)), targets), empty, recipe, Processes(), device)
        self.count, self.precision, self.device = len(items), precision, device

        def train():
            Trainer(self.model, feed, objective, folder / "state", quiet=True).run(lambda state: None)
            (folder / "state" / "resume" / "state.pt").unlink(missing_ok=True)

        self.epoch = train

    def ready(self, options):
        """The bare loop over a batch that lies on the device."""
        from wbctool.device import autocast

        images = torch.randint(0, 256, (options.batch_size, 3, 224, 224), dtype=torch.uint8, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.arange(options.batch_size, device=self.device) % CLASSES
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.model.train()

        def epoch():
            for _ in range(self.count // options.batch_size):
                with autocast(self.device, self.precision):
                    logits = self.model(images)
                loss = torch.nn.functional.cross_entropy(logits.float(), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return epoch, self.count // options.batch_size * options.batch_size


def timms(options, device, folder):
    """An epoch of timm's training script with its defaults."""
    import timm
    from timm.data import create_dataset, create_loader, resolve_data_config

    for path, number in samples(options.images):
        link = folder / "train" / str(number) / Path(path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    model = timm.create_model(options.backbone, num_classes=CLASSES).to(device)
    config = resolve_data_config({}, model=model)
    dataset = create_dataset("", root=str(folder), split="train", is_training=True, batch_size=options.batch_size)
    loader = create_loader(
        dataset,
        input_size=(3, 224, 224),
        batch_size=options.batch_size,
        is_training=True,
        use_prefetcher=device.type == "cuda",
        color_jitter=0.4,
        interpolation="random",
        mean=config["mean"],
        std=config["std"],
        num_workers=4,
        device=device,
        persistent_workers=True,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()

    def epoch():
        for images, targets in loader:
            loss = torch.nn.functional.cross_entropy(model(images.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    epoch()  # the first, with the workers' start
    return epoch, len(loader) * options.batch_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {}
        for augment in ("flips", "full"):
            (folder / augment).mkdir()
            ours = Ours(options, augment, device, folder / augment)
            runs[augment] = (ours.epoch, ours.count)
        runs["ready"] = ours.ready(options)
        runs["timm"] = timms(options, device, folder / "timm")
        rates = {what: [] for what in runs}
        for turn in range(options.rounds + 1):
            for what, (epoch, count) in runs.items():
                start = time.perf_counter()
                epoch()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first warms up
                    rates[what].append(count / (time.perf_counter() - start))
    print(f"{options.backbone} at 224 on {device.type}, {ours.precision}, medians of {options.rounds} rounds")
    middle = {what: statistics.median(values) for what, values in rates.items()}
    for what, value in middle.items():
        turns = [rates[what][i] / rates["ready"][i] for i in range(options.rounds)]
        print(f"{what:6s} {value:8.1f} images/s, {statistics.median(turns):.2f} of ready")
        figure(f"training {options.backbone}: {what} of ready tensors", statistics.median(turns))
    against = [rates["flips"][i] / rates["timm"][i] for i in range(options.rounds)]
    print(f"flips against timm's defaults: {statistics.median(against):.2f} x")
    figure(f"training {options.backbone}: times timm's script", statistics.median(against))


if __name__ == "__main__":
    main()
