"""The training loop: config in, steps, states and bundles out. Commands of vla_training import it; readers of data do not."""
