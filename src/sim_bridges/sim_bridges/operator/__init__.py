"""A scripted person at a gamepad: sees a simulator's whole state, plays Joy messages; for tests and for docs/data-loop.md."""
