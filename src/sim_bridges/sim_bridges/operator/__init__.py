"""A scripted person at a gamepad: sees a simulator's whole state, plays Joy messages. For tests and docs/data-loop.md."""
