"""What predicts, behind one interface: models, histories, baselines (ridge, lag filters) and controls."""
