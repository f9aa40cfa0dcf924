"""The command `flaxapps finetune`."""
