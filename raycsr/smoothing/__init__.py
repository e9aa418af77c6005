"""Randomized smoothing's sampling: seeded noise, and the engine that counts votes on the device."""
