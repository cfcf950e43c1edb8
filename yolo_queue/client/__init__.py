"""The HTTP client. Import it from `yolo_queue`."""
