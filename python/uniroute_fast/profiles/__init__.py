"""Outcomes of LLMs to profiles: a predicted loss of each in each cluster."""
