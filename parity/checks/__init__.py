"""What is compared, one subject a file: model, training, RAMN's training, replay, goldens."""
