"""VMT-Adapter and VMT-Adapter-Lite: one trunk for all tasks, a scale and a shift per task, as a plugin of mt-adapters."""
