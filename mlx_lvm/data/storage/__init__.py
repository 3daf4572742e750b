"""Corpora on disk: read, mapped, written, streamed, in one file or in shards."""
