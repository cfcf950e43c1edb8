"""The command `yolo-queue`."""
