"""A real edge on one machine, which is trained on, watched and attacked."""
