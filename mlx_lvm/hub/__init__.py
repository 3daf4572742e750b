"""A model by its name: load, export, import, its card and golden pair."""
