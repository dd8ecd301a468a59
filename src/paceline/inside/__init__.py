"""What runs inside an engine's own process: it may import the engine, and of Paceline nothing but this folder."""
