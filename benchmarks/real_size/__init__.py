"""The finding at the size people run: real costs of real shapes, published acceptances, the real gateway."""
