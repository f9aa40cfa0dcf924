"""Commands on weight files, also as `python -m weight_port`: `inspect`, `convert`, `diff` and `verify`."""
