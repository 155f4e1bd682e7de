"""Settings models, loading of YAML, presets."""
