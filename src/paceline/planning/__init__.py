"""From a model file to the engines that serve it."""
