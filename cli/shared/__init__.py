"""What commands share: common options, subjects, texts, progress, and how results read on a terminal."""
