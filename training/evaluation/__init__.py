"""Evaluation: images with their truth, networks at many depths at once, COCO's figures."""
