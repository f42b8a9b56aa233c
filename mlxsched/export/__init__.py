"""Taking a run's result elsewhere: fused models, PEFT, GGUF, Ollama, and the Hugging Face Hub."""
