"""One gateway in several processes: workers that share an address, the engines, and what they learn."""
