"""Turns an encoded image into detections and an annotated picture."""
