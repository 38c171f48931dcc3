"""DELIVER: where events go. Each sink is a stranger to the others; the engine drives them, the app builds them."""
