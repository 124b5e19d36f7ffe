"""Other people's agents: asked by their own protocols, through the guarded way out."""
