"""Random augmentation layers."""
