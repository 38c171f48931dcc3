"""EXPOSE: read-only faces of the mirror."""
