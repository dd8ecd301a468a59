"""The costs of real shapes on one GPU, measured by one command on a machine that has nothing else prepared."""
