"""Code that all networks share: signature, building, loading, facts, ImageNet utilities."""
