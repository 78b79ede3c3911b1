"""Supervised fine-tuning: documents packed into rows, and which episodes become documents."""
