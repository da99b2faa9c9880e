"""Losses: assignment of predictions to objects, and the terms that follow from it."""
