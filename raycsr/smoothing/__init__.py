"""Randomized smoothing's sampling: the exact, seeded noise, and the engine that counts votes on the device."""
