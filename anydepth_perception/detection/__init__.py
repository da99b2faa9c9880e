"""Detection: an image and a depth configuration in, detections in source pixels out."""
