"""Real-time streams: their definitions, one file each, and what simulates them."""
