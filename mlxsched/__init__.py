"""Learning-rate schedules for MLX, and the LoRA fine-tuning app that makes them finish."""
