"""The best last layer on any features: heads, backbones, features."""
