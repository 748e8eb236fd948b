"""Recipes, one file per result; ``lit-awm fit --config NAME`` layers them over ``common.yaml``."""
