"""Figures that a benchmark hands to `table.py`, which gathers those of all."""

import json
import os


def figure(name: str, value: float) -> None:
    """Note a figure under the name of its goal; nothing where no table is made."""
    if file := os.environ.get("WBCTOOL_FIGURES"):
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"name": name, "value": float(value)}) + "\n")
