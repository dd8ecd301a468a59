"""What a machine has for Paceline to use: engines that run, models' files, keys of providers; and the configuration
that is made of it."""
