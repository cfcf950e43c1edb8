"""The gateway: accepts images and answers with jobs. Never imports workers, torch, cv2 or numpy."""
