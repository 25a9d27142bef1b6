"""Training: data feed, losses, phases, the loop."""
