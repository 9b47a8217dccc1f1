"""Demonstrations in, policy bundles out. Stands on vla_policy and sim_bridges; neither imports it."""
