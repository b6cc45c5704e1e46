"""The only door to files: allow-lists, caps before parsing, one error tree, digests on every read."""
