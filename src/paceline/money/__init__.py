"""What answers cost: prices of models, bills of answers, the power of the machine."""
