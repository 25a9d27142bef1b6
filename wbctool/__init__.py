"""wbctool: white-blood-cell microscopy from the shell."""

import os

__version__ = "0.1.0"
PURPOSE = "For research; not a medical device."
MAX_PIXELS = 500_000_000  # larger images are refused before memory is taken for them
# OpenCV reads both when it is imported, wherever that is.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
