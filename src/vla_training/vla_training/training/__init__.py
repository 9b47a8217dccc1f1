"""The training loop: config in, steps, states and bundles out. Commands import it; readers of data do not."""
