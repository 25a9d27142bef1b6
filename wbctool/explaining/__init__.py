"""Where a classifier looks: class-activation maps, and figures for how far they can be believed."""
