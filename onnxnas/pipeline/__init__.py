"""The straight line: run directory, configuration, stages, and the Python interface to them."""
