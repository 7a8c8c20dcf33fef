"""How a network comes to be: plans and presets, sub-networks, joint training, refinement."""
