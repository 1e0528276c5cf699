"""Embedding models: found, loaded, run on the device there is, saved and searched with."""
