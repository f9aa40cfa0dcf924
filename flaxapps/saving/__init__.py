"""Loading and saving of whole Keras models: architecture and weights."""
