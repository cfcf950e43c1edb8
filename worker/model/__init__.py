"""From an encoded image to detections and an annotated picture."""
