"""REMEMBER: the mirror, the event log and their checkpoints."""
