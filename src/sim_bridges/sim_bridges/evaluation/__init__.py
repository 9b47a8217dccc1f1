"""Benchmarks at scale: trials, who acts, where they are played, what is kept, what is reported."""
