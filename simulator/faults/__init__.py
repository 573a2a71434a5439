"""Faults on demand: a vocabulary, plans of it, and what carries them out."""
