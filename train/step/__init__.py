"""One training step: losses, metrics, state, augmentation."""
