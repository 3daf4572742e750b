"""What predicts, behind one interface: models, histories, baselines and controls."""
