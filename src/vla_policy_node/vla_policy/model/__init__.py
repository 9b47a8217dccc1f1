"""The models: images, text and proprioception in, action chunks out.

Only `vla_policy` itself and `vla_training` import it.
"""
