"""Deterministic models of an edge node and of ports, which made the datasets in data/."""
