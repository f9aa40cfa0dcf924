"""What is done to the updates of an optimizer of Optax: averages, layer-wise rates, and what weight decay applies to."""
