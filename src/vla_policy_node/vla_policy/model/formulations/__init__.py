"""How a window of frames becomes one feature per frame, one file each; `vla_policy.model.registry` names
them.
"""
