"""From images and texts to CLIP embeddings."""
