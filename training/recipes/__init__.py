"""Recipes: typed settings of a training run, the YAML files that hold them, and weights files that remember them."""
