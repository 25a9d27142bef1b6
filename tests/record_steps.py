"""`wbctool`, with each step of a training recorded: its samples and the sums of its loss.

python tests/record_steps.py FILE train …
"""

import json
import os
import sys

if __name__ == "__main__":
    from wbctool.cli import main
    from wbctool.training.loop import Trainer

    file = f"{sys.argv.pop(1)}.{os.environ.get('RANK', 0)}"
    step = Trainer._step

    def recorded(self, context, batch, epoch):
        sums = step(self, context, batch, epoch)
        samples = sorted(round(float(row[15]), 6) for row in batch.draws)  # its random numbers identify a sample
        with open(file, "a") as stream:
            row = {"epoch": epoch, "samples": samples, "loss": float(sums[0]), "weight": float(sums[1])}
            stream.write(json.dumps(row) + "\n")
        return sums

    Trainer._step = recorded
    main()
