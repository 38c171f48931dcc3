"""OBSERVE: readers of the engine's observations."""
