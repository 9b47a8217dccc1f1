"""Vision-language backbones, one file each; `vla_policy.model.registry` names them."""
