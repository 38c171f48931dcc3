"""DECIDE: what to fetch and what changed; pure."""
