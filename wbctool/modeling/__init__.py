"""Models: a backbone with attention and a head, ensembles, and the run folder that keeps them."""
