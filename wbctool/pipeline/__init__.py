"""The engine: steps over records, their runner, and output folders that can be resumed."""
