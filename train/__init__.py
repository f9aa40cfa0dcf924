"""Fine-tuning of flaxapps models with Optax."""
