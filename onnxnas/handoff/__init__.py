"""What leaves a run: a bundle for each Pareto member (`bundle`, `verify`) and one report (`report`)."""
