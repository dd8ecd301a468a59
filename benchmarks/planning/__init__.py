"""Whether plans are right: of memory, against engines; of speed, against what others have published."""
