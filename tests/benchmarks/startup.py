"""Start-up against the bare import of typer and rich.

    python tests/benchmarks/startup.py

Runs each in turn and prints medians and their ratio; the goal is at most 2.
"""

import os
import statistics
import subprocess
import sys
import time

from figures import figure

BARE = [sys.executable, "-c", "import typer, rich.console"]
COMPLETION = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": "wbctool segment --me", "COMP_CWORD": "2"}
CASES = {
    "wbctool --help": (["--help"], {}),
    "completion of an option": ([], COMPLETION),
    "completion of a method": ([], {**COMPLETION, "COMP_WORDS": "wbctool segment --method ", "COMP_CWORD": "3"}),
    "completion of a recipe": ([], {**COMPLETION, "COMP_WORDS": "wbctool train --recipe ", "COMP_CWORD": "3"}),
    "completion of a backbone": ([], {**COMPLETION, "COMP_WORDS": "wbctool train --backbone re", "COMP_CWORD": "3"}),
    "completion of a run folder": ([], {**COMPLETION, "COMP_WORDS": "wbctool predict ", "COMP_CWORD": "2"}),
    "completion of a command": ([], {**COMPLETION, "COMP_WORDS": "wbctool se", "COMP_CWORD": "1"}),
}


def timed(command: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    print(f"{'what':26} {'bare':>8} {'wbctool':>8} {'ratio':>6}")
    for name, (words, env) in CASES.items():
        pairs = [(timed(BARE, {}), timed([sys.executable, "-m", "wbctool", *words], env)) for _ in range(12)][2:]
        bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{name:26} {bare:7.3f}s {ours:7.3f}s {ratio:6.2f}")
        figure(f"start-up: {name}", ratio)


if __name__ == "__main__":
    main()
