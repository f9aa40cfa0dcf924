"""Access to the machine: files, console, processes and Keras's settings."""
