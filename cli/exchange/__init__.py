"""Commands of the panel Exchange: export and import."""
