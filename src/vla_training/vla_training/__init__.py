"""Demonstrations in, policy bundles out: collecting, grounding, training. Stands on vla_policy; nothing of
vla_policy imports it.
"""
