"""Models: a timm backbone with attention, and the run folder that keeps it."""
