"""Files: written whole or not at all, and safetensors read strictly and written the same each time."""
