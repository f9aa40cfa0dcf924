"""Safe reading of HDF5 files and zip archives of unknown origin."""
