"""Changes to the updates of an Optax optimizer: averages, layer-wise rates, and what weight decay applies to."""
