"""Embedding to clusters."""
