"""Voices, their files, and what a model can do with them."""
