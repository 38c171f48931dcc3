"""DEMO: the product with nothing to set up: a mail server of its own, mail arriving, and the service mirroring it."""
