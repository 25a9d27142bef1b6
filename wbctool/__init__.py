"""wbctool: white-blood-cell microscopy from the shell."""

__version__ = "0.1.0"
PURPOSE = "For research; not a medical device."
