"""What has nothing to do with eyes: files, the device, the folder of a run."""
