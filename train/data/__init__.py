"""Training data: datasets, folders and tables of photos, input pipelines."""
