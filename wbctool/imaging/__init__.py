"""Reading and writing images, and what is done to whole images."""
