"""Trains a recipe: the loop and what it keeps."""
