"""A scripted person at a gamepad: sees a simulator's whole state, plays Joy messages; see docs/data-loop.md."""
