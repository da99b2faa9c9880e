"""Simulation and replay: the controller and others on made-up and on recorded times, against one who knows them."""
