"""What a cell measures: shape, colour, texture."""
