"""The torch twins, one file an architecture, written from the specification."""
