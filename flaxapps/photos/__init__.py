"""Photos: reading files, labelled folders and tables, and class names."""
