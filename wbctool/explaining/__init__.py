"""Where a classifier looks: class-activation maps, and figures for how far they can be believed."""

METHODS = ("gradcam", "gradcam++", "layercam", "scorecam", "eigencam", "attention", "random")
OF_NO_CLASS = ("eigencam", "attention", "random")  # they are the same for every class
