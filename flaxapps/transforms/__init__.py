"""Graph transformations: model to model, computing the same or nearly so."""
