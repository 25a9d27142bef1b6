"""One module per segmentation method, each with one constant of `wbctool.segmentation.Method`.

They are imported for help and completion, so they import OpenCV, NumPy and the like inside functions.
"""
