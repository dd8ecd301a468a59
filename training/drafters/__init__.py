"""Drafters for the bundled model: a draft model, an EAGLE-3 head and a model with an MTP layer, made by script."""
