"""SIMPLER: the genuine SimplerEnv and ManiSkill3's digital twins of it behind the `Sim` protocol, and its benchmark.

Li et al., "Evaluating Real-World Robot Manipulation Policies in Simulation" (2024), https://arxiv.org/abs/2405.05941.
Nothing of SimplerEnv or ManiSkill is contained here: a checkout of the user's is found by SIMPLER_ROOT, ManiSkill3 is
a package.
"""
