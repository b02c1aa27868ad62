"""Real-time streams: their definitions, one file each, and the simulators of their events."""
