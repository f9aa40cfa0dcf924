"""Device placement, and cost estimates of a step."""
