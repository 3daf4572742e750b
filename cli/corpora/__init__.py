"""Commands of the panel Corpora: embed, and what `lvm data` does."""
