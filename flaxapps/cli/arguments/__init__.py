"""Arguments and help texts of the commands. Imports nothing of ours beside parsers, so that --help answers at once."""
