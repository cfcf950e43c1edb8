"""The gateway: takes uploads, answers with jobs. Never imports the workers, torch, cv2 or numpy."""
