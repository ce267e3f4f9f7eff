"""Exchange with other evaluation tools: lmms-eval's models and tasks, VLMEvalKit's tables, both tools' answers."""
