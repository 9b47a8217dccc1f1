"""CALVIN: the genuine calvin_env behind the `Sim` protocol, and its long-horizon benchmark LH-MTLC.

Mees et al., "CALVIN: A Benchmark for Language-Conditioned Policy Learning for Long-Horizon Robot Manipulation
Tasks" (2022). Nothing of CALVIN is contained here: a checkout of the user's is found by CALVIN_ROOT.
"""
