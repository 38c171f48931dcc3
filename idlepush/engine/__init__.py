"""RUN: the thin shell of effects around the pure core."""
