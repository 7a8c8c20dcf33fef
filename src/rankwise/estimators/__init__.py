"""The scikit-learn faces, and their files."""
