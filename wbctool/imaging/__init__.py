"""Reading and writing images; colour, enhancement, near-duplicates and label images."""
