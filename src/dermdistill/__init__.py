"""dermdistill: dermatoscopic images in, a phone-sized melanoma detector and its honest report out."""
